"""Token ids of many prompts, by the reference's own tokenizer.

    python make.py DIFFBIR

DIFFBIR is a checkout of https://github.com/XPixelGroup/DiffBIR at 3f8b5304245ba0ffd6f1995e51c27c3c72d7618f; needs
torch, ftfy and regex. Writes prompts.json: kind, prompt and ids up to the padding. Kind `exotic` holds what our
cleaning is known to leave as it is (README.md).
"""

import importlib.util
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))

POSITIVE = (
    "Cinematic, High Contrast, highly detailed, taken using a Canon EOS R camera, hyper detailed photo - realistic "
    "maximum detail, 32k, Color Grading, ultra HD, extreme meticulous detailing, skin pore detailing, hyper sharpness, "
    "perfect without deformations."
)
NEGATIVE = (
    "painting, oil painting, illustration, drawing, art, sketch, oil painting, cartoon, CG Style, 3D render, unreal "
    "engine, blurring, dirty, messy, worst quality, low quality, frames, watermark, signature, jpeg artifacts, deformed, "
    "lowres, over-smooth."
)

PLAIN = [
    "",
    "a city with tall buildings, forest trees, snowy mountain background",
    "low quality, blurry, low-resolution, noisy, unsharp, weird textures",
    "longbody, lowres, bad anatomy, bad hands, missing fingers, extra digit, fewer digits, cropped, worst quality, "
    "low quality",
    POSITIVE,
    NEGATIVE,
    "a photograph of an astronaut riding a horse",
    "Portrait of an old man with a beard",
    "PORTRAIT OF AN OLD MAN WITH A BEARD",
    "a",
    "I",
    "the quick brown fox jumps over the lazy dog",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "sunflowers in a vase, oil on canvas, 1888",
    "macro shot of a bee on lavender, f/2.8, ISO 100",
    "xqzjkvwq zzyzx",
    "close-up of a cat's whiskers",
    "old family photo from the 1950s, black-and-white, scratched",
    "iPhone photo of a Subaru WRX STI at night",
    "DSLR photo, 85mm lens, bokeh, golden hour",
]
CONTRACTIONS = [
    "it's the dog's ball and they're late",
    "I'VE DONE IT, WE'LL GO, HE'D STAY, I'M HERE, CAN'T STOP",
    "rock'n'roll '90s",
    "o'clock 'tis 'twas 'sup",
    "don''t 's 'S 'T",
    "'",
    "''",
    "students' books",
]
NUMBERS = [
    "3d render 4k 8K 1920x1080",
    "12345678901234567890",
    "1,000,000.50 dollars",
    "\u00bd cup, \u00be full, x\u00b2 + y\u00b3, H\u2082O",
    "\u2167. Roman \u2173 numerals \u2460\u2461\u2462",
    "\u0663\u0664\u0665 arabic digits, \u0967\u0968\u0969 devanagari, \u4e09\u767e",
    "v2.1-768, rev. 3f8b530",
    "100% cotton, 5\u00b0C, 10\u20ac, \u00a320, \u00a530",
]
PUNCTUATION = [
    "(masterpiece:1.2), [low quality], {best}",
    "a::b;;c,,d..e!!f??",
    "...",
    "!?!?!?",
    "photo_of_a_house_in_the_woods.jpg",
    "C:\\Users\\me\\image.png /home/me/*.png",
    "https://example.org/a?b=c&d=e#f",
    "me@example.org #hashtag @user",
    "a<b>c</b>d",
    "<start_of_text> hello <end_of_text>",
    "<START_OF_TEXT> hello <End_Of_Text>",
    "<|startoftext|> <|endoftext|>",
    "--ar 16:9 --v 5",
    "~`^*+=|\\/",
    "\"quoted\" 'single' `back`",
    "\u201ccurly\u201d \u2018single\u2019 \u201elow\u201d \u201bodd\u201f it\u2019s \u02bc",
    "\u00abguillemets\u00bb \u2039single\u203a",
    "dash - en \u2013 em \u2014 bar \u2015 minus \u2212",
    "ellipsis\u2026 bullet \u2022 dagger \u2020 section \u00a7",
    "\u201cCAF\u00c9\u201d and \u00abTH\u00c9\u00bb \u2014 \u00c9T\u00c9\u2026",
    "CAF\u00c9\u2014BAR, NI\u00d1O\u2122, \u00c5NGSTR\u00d6M\u00ae",
    "a \u00c5 radius of 10 \u00c5",
]
SPACES = [
    "   leading and trailing   ",
    "tabs\tand\nnewlines\r\nand\rreturns",
    "many     spaces      inside",
    "no\u00a0break\u2003em\u2009thin\u3000ideographic",
    "line\u2028separator\u2029paragraph\u0085next",
    " \t\n ",
    "zero\u200bwidth\u200djoiner\ufeffbom",
    "soft\u00adhyphen",
    "vertical\x0btab form\x0cfeed",
    "\u180emongolian\u180e",
]
SCRIPTS = [
    "Stra\u00dfe in M\u00fcnchen bei Nacht, \u00c4pfel und \u00d6l",
    "STRASSE GR\u00d6SSE \u1e9e",
    "ch\u00e2teau fran\u00e7ais, c\u0153ur, na\u00efve, \u0152uvre",
    "ni\u00f1o espa\u00f1ol \u00bfqu\u00e9? \u00a1hola!",
    "S\u00e3o Paulo, cora\u00e7\u00e3o, MA\u00c7\u00c3",
    "\u0141\u00f3d\u017a, \u017c\u00f3\u0142w, \u015bwiat\u0142o, D\u0105b",
    "P\u0159\u00edli\u0161 \u017elu\u0165ou\u010dk\u00fd k\u016f\u0148",
    "\u00c5s\u00e5 \u00c6r\u00f8 Bl\u00e5b\u00e6r, \u00deing, \u00d0",
    "\u0130stanbul'da \u0131\u015f\u0131k, \u011f\u00fcne\u015f",
    "I\u0307zmir e\u0301 combining n\u0303 o\u0308",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440! \u041c\u043e\u0441\u043a\u0432\u0430",
    "\u041a\u0438\u0457\u0432, \u0404\u0432\u0440\u043e\u043f\u0430, \u0491\u0430\u043d\u043e\u043a",
    "\u0393\u03b5\u03b9\u03ac \u03c3\u03bf\u03c5 \u039a\u03cc\u03c3\u03bc\u03b5 \u039f\u0394\u039f\u03a3 \u03a3",
    "\u05e9\u05dc\u05d5\u05dd \u05e2\u05d5\u05dc\u05dd",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "\u0bb5\u0ba3\u0b95\u0bcd\u0b95\u0bae\u0bcd \u0b89\u0bb2\u0b95\u0bae\u0bcd",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\u4f60\u597d\u4e16\u754c\uff0c\u4e00\u5ea7\u57ce\u5e02",
    "\u3053\u3093\u306b\u3061\u306f\u4e16\u754c\u3001\u5bcc\u58eb\u5c71",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
    "\u1112\u1161\u11ab\u1100\u116e\u11a8 jamo",
    "Xin ch\u00e0o th\u1ebf gi\u1edbi, \u0110\u00e0 N\u1eb5ng",
    "\u10d2\u10d0\u10db\u10d0\u10e0\u10ef\u10dd\u10d1\u10d0, \u1c92\u1c90\u1c9b",
    "\u0532\u0561\u0580\u0565\u0582 \u0561\u0577\u056d\u0561\u0580\u0570",
    "\u12a0\u12f2\u1235 \u12a0\u1260\u1263 \u13a3\u13b3\u13a9",
    "\U0001d4d7\U0001d4ee\U0001d4f5\U0001d4f5\U0001d4f8 \U0001d54e\U0001d560\U0001d563\U0001d55d\U0001d555 math letters",
    "\u24b6\u24b7\u24b8 circled, \u212a kelvin, \u2126 ohm, \u212b angstrom",
    "mixed \u0440\u0443\u0441\u0441\u043a\u0438\u0439 and \u4e2d\u6587 and \u0627\u0644\u0639\u0631\u0628\u064a\u0629",
    "\u017fhort \u017ft long s, \u01c5 title, \u0345 iota",
]
WIDTHS = [
    "\uff2c\uff2f\uff35\uff24\u3000\uff2e\uff2f\uff29\uff33\uff25\uff33 \uff11\uff12\uff13\uff01",
    "\uff76\uff9e\uff97\uff7d \uff8a\uff9f\uff8b\uff9f halfwidth",
    "\uffa1\uffa2 \uffe0\uffe1\uffe5\uffe6 \uffe3\uff5e",
    "\ufb01ne \ufb02ow e\ufb00ect e\ufb03cient ba\ufb04e \ufb05 \ufb06",
    "\u0132sselmeer, \u0133s, \u0149, \u01c4 \u01c5 \u01c6 \u01c7 \u01c8 \u01c9 \u01ca \u01cb \u01cc \u01f1 \u01f2 \u01f3",
    "\u00e6 \u0153 stay, \u2460 stays, \u00b5 stays",
    "\uff07quote\uff07 \uff02double\uff02 \uff06amp; &\uff41mp;",
]
CONTROLS = [
    "bell\x07 back\x08space null\x00 del\x7f esc\x1b",
    "\x1b[31mred\x1b[0m \x1b[1;32mgreen\x1b[m",
    "unit\x1fseparator file\x1cgroup\x1d",
    "c1 \x93quotes\x94 \x85 \x80 \x99 \x81",
    "object\ufffcreplacement \ufff9anno\ufffa \u206a \ufffd",
    "rtl \u200fmark\u202e override \u2066isolate",
]
EMOJI = [
    "\U0001f600 smiling",
    "\u2764\ufe0f heart \u2764",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 family",
    "\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7 flags \U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f",
    "\U0001f44d\U0001f3fd thumbs \U0001f44d\U0001f3ff",
    "\u2600\ufe0f\u2601\u26a1\u2744 weather",
    "1\ufe0f\u20e3 keycap #\ufe0f\u20e3",
    "\U0001f431\U0001f436 cat\U0001f408dog",
    "\u2728 masterpiece \u2728, \U0001f525best quality\U0001f525",
    "\u266b \u266f \u2602 \u2615 \u2611 \u2713 \u2605",
    "\U0001fae0 \U0001f9d1\u200d\U0001f680 new ones",
    "\u2192 \u21d2 \u2190 \u2194 \u2206 \u2211 \u221e \u2260 \u2264",
    "\u2588\u2593\u2592\u2591 \u2554\u2550\u2557 \u251c\u2524",
]
ENTITIES = [
    "black &amp; white",
    "black &amp;amp; white",
    "black &amp;amp;amp; white",
    "black &amp;amp;amp;amp;amp; white",
    "&lt;b&gt;bold&lt;/b&gt;",
    "<i>caf&eacute;</i> &amp;amp; bar",
    "<i>caf&amp;amp;eacute;</i>",
    "a < b\n&amp;amp;amp; c",
    "P&EACUTE;REZ &NTILDE; &nTILDE; &SZLIG; &HELLIP;",
    "caf&eacute cr&egraveme &copy2024 &reg",
    "this&not that, &notin; &notit; &noti",
    "&#233;t&#xe9; &#XE9; &#8364; &#x1F600;",
    "&#233 &#xe9 &#x1F600 no semicolon",
    "&#0; &#128; &#x80; &#x81; &#xD800; &#x110000; &#99999999999;",
    "&#1; &#11; &#12; &#13; &#127; &#xFDD0; &#xFFFF;",
    "&nbsp;&ensp;&emsp;&thinsp;x&ZeroWidthSpace;y",
    "&quot;quoted&quot; &apos;single&apos; &#39;num&#39;",
    "&ldquo;curly&rdquo; &lsquo;single&rsquo; &mdash; &ndash; &hellip;",
    "&Jscr;ohn &HilbertSpace;ancock &checkmark; &NotEqualTilde; &fjlig;",
    "&CounterClockwiseContourIntegral; &DoubleLongLeftRightArrow;",
    "R&D, AT&T, Q&A, S&P 500, a&b;c",
    "&;&&;;&#;&#x;&#xg;",
    "&unknown; &AMP; &AMP &LT; &GT &QUOT; &COPY; &REG",
    "&Alpha;&beta;&GAMMA; &times; &divide; &deg;C &frac12; &FRAC12;",
    "&#x26;amp; &#38;lt;",
    "fish &ampamp; chips &ampersand;",
    "&Uuml;ber &uuml;ber &UUML;BER",
    "&hearts; &spades; &euro;10 &pound;5 &yen; &cent;",
    "&angst; &angzarr; &Aacut &Aacute&aacute",
    "\uff41&amp;\uff42 \uff06lt; &amp;#x27;",
]

# Read as another encoding than the UTF-8 that it is.
READ_AS = {
    "windows-1252": [
        "caf\u00e9 cr\u00e8me br\u00fbl\u00e9e",
        "Stra\u00dfe in M\u00fcnchen, \u00c4pfel, \u00d6l",
        "ni\u00f1o espa\u00f1ol \u00bfqu\u00e9? \u00a1hola!",
        "it\u2019s a \u201cquoted\u201c word",
        "ellipsis\u2026 dash \u2013 dash \u2014 end",
        "10 \u20ac, \u00a320, \u00a9 2024, 5\u00b0C, \u00bd",
        "\U0001f600 smiling \U0001f44d",
        "\u2764 heart \u2605 star \u2713 check",
        "\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440",
        "\u0393\u03b5\u03b9\u03b1 \u03c3\u03bf\u03c5",
        "\u05e9\u05dc\u05d5\u05dd",
        "\u65e5\u672c\u306e\u5c71",
        "\u4e00\u5ea7\u57ce\u5e02",
        "d\u0142u\u017cszy \u015bwiat",
        "pla\u017e\u00ed v \u010cech\u00e1ch",
        "ch\u00e2teau fran\u00e7ais \u00eele",
        "Bl\u00e5b\u00e6r og fl\u00f8de",
        "\uc548\ub155 \uc138\uacc4",
        "no\u00a0break",
        "voil\u00e0\u00a0!",
        "Vi\u1ec7t Nam",
        "\u00e9",
    ],
    "latin-1": [
        "caf\u00e9 cr\u00e8me",
        "it\u2019s a \u201cquoted\u201d word",
        "\U0001f600 smiling",
        "\u05d0\u05d1\u05d1\u05d0",
        "\u041f\u0440\u0438\u0432\u0435\u0442",
        "Gro\u00dfe \u00dcbung",
    ],
}
MOJIBAKE = [
    # In part only, and twice over.
    "sch\u00c3\u00b6n und sch\u00f6n",
    "caf\u00c3\u00a9 \U0001f600 \u2713",
    "caf\u00c3\u0192\u00c2\u00a9 twice",
    "it\u00c3\u00a2\u00e2\u201a\u00ac\u00e2\u201e\u00a2s twice",
    "it&acirc;&#128;&#153;s",
    "caf&Atilde;&copy;",
    "\u2018proper\u2019 and \u00e2\u20ac\u0153broken\u00e2\u20ac",
    "\u00c2\u00a9 \u00c2\u00ae \u00c2\u00b0",
]
NOT_MOJIBAKE = [
    "MAR\u00c7 \u00cd\u00d1IGO \u00c9T\u00c9 \u00c0 PARIS",
    "NICIODAT\u0102\u2122",
    "AH\u00c5\u2122, the new sofa",
    "!YO S\u00c9\u00a1",
    "(-1/2)! = \u221a\u03c0",
    "Charlotte Bront\u00eb\u2026\u201d",
    "\u0412\u0406\u041a\u0406 is Ukrainian",
    "na\u00efve r\u00e9sum\u00e9 \u00e0 la carte",
    "C O N C L U S \u00c3 O",
    "\u00c9\u2019 \u00c8\u00bb \u00ca\u2013 \u00d6\u00ae",
    "\u00c0\u00b0 \u00dc\u2122",
    "e\u0301\u201d \u00e9\u201d. \u00e0\u2026",
]
EXOTIC = [
    # A no-break space that became a space.
    "voil\u00c3 le travail",
    # UTF-8 read as Windows-1251, Mac Roman, Windows-1250, code page 437.
    "it\u0432\u0402\u2122s a \u0432\u0402\u045aquoted\u0432\u0402\u045c word",
    "Zam\u221a\u2264 \u201a\u00c4\u00b6",
    "\u0159\u00c3\u00a9 \u0102\u00a9t\u0102\u00a9",
    "caf\u251c\u2310",
    # A lost byte.
    "\u00e2\u20ac\u0153lossy\u00e2\u20ac\ufffd",
]


def prompts():
    for kind in ("PLAIN", "CONTRACTIONS", "NUMBERS", "PUNCTUATION", "SPACES", "SCRIPTS", "WIDTHS", "CONTROLS"):
        yield from ((kind.lower(), text) for text in globals()[kind])
    for kind in ("EMOJI", "ENTITIES"):
        yield from ((kind.lower(), text) for text in globals()[kind])
    for encoding, texts in READ_AS.items():
        for text in texts:
            # What Windows-1252 does not assign stays as in Latin-1.
            broken = "".join(
                bytes([byte]).decode(encoding, errors="ignore") or chr(byte) for byte in text.encode()
            )
            yield "mojibake", broken
    yield from (("mojibake", text) for text in MOJIBAKE)
    yield from (("not mojibake", text) for text in NOT_MOJIBAKE)
    yield "long", ", " + POSITIVE
    yield "long", "an old brick house beside a lake with two boats and a dog on the pier at sunset, " + POSITIVE
    yield "long", "word " * 74
    yield "long", "word " * 75
    yield "long", "word " * 76
    yield "long", "word " * 500
    yield "long", "\U0001f431" * 60
    yield "long", "0123456789" * 10
    yield "long", "\u4e16\u754c" * 40
    yield "long", "x" * 1000
    yield from (("exotic", text) for text in EXOTIC)


def main():
    path = os.path.join(sys.argv[1], "diffbir", "model", "open_clip", "tokenizer.py")
    spec = importlib.util.spec_from_file_location("tokenizer", path)
    tokenizer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tokenizer)
    lines, seen = [], set()
    for kind, prompt in prompts():
        assert prompt not in seen, prompt
        seen.add(prompt)
        ids = tokenizer.tokenize(prompt)[0].tolist()
        while ids[-1] == 0:
            ids.pop()
        lines.append(json.dumps({"kind": kind, "prompt": prompt, "ids": ids}))
    with open(os.path.join(HERE, "prompts.json"), "w") as file:
        file.write("[\n" + ",\n".join(lines) + "\n]\n")
    print(len(lines), "prompts")


if __name__ == "__main__":
    main()
