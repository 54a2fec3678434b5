//! A prompt without its glitches: what the reference does by `ftfy.fix_text`, `html.unescape` (twice), collapsing
//! of whitespace and lower-casing (reference 1.4).
//!
//! Mojibake is the one part that is simpler here than in ftfy: only text that was read as Windows-1252 or
//! Latin-1 is mended (`tests/goldens/README.md` says what that leaves).

use regex::{Captures, Match, Regex};
use std::sync::LazyLock;
use unicode_normalization::UnicodeNormalization;

/// What Windows-1252 has at 0x80 to 0x9f; Latin-1's control characters where it has nothing.
const WINDOWS_1252: [char; 32] = [
    '€', '\u{81}', '‚', 'ƒ', '„', '…', '†', '‡', 'ˆ', '‰', 'Š', '‹', 'Œ', '\u{8d}', 'Ž', '\u{8f}', '\u{90}',
    '‘', '’', '“', '”', '•', '–', '—', '˜', '™', 'š', '›', 'œ', '\u{9d}', 'ž', 'Ÿ',
];

/// The prompt in lower case on one line.
pub(crate) fn clean(prompt: &str) -> String {
    let text = unescape(&unescape(&mend(prompt)));
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// Mends each line. From the first `<` on the text is taken for HTML, where entities are meant.
fn mend(text: &str) -> String {
    let mut plain = true;
    let mend_line = |line: &str| {
        plain &= !line.contains('<');
        settled(line.to_string(), |text| {
            let text = if plain { unescape_whole(text) } else { text.to_string() };
            let text = settled(text, undo_mojibake);
            simplify(&without_escapes(&text)).nfc().collect()
        })
    };
    text.split_inclusive('\n').map(mend_line).collect()
}

/// A text after so many steps that another one changes nothing.
fn settled(mut text: String, step: impl Fn(&str) -> String) -> String {
    loop {
        let next = step(&text);
        if next == text {
            return text;
        }
        text = next;
    }
}

/// Without the sequences that colour text in a terminal.
fn without_escapes(text: &str) -> String {
    static ESCAPE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\x1b\[[0-9;]*[a-zA-Z]").expect("valid"));
    ESCAPE.replace_all(text, "").into_owned()
}

/// Ligatures taken apart, full and half width made normal, quotes straight, control characters out.
fn simplify(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{80}'..='\u{9f}' => out.push(WINDOWS_1252[c as usize - 0x80]),
            '\u{fb05}' => out.push_str("ſt"),
            'Ĳ' | 'ĳ' | 'ŉ' | 'Ǆ'..='ǌ' | 'Ǳ'..='ǳ' | '\u{fb00}'..='\u{fb06}' | '\u{ff01}'..='\u{ffef}' =>
            {
                out.extend(std::iter::once(c).nfkc());
            }
            '\u{3000}' => out.push(' '),
            '\u{2bc}' | '\u{2018}'..='\u{201b}' => out.push('\''),
            '\u{201c}'..='\u{201f}' => out.push('"'),
            '\0'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' => {}
            '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}' => {}
            _ => out.push(c),
        }
    }
    out
}

/// Reads characters that are UTF-8 when written in Windows-1252 as that UTF-8, if they look like an accident. Where
/// all runs of characters beyond ASCII are such UTF-8, one accident speaks for all.
fn undo_mojibake(text: &str) -> String {
    static RUN: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"[^\x00-\x7f]+").expect("valid"));
    let runs = || RUN.find_iter(text);
    let accident = |run: &Match| is_accident(run.as_str(), text[..run.start()].chars().last());
    let all = runs().any(|run| accident(&run)) && runs().all(|run| misread(run.as_str()).is_some());
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    for run in runs().filter(|run| all || accident(run)) {
        out.push_str(&text[done..run.start()]);
        out.push_str(&misread(run.as_str()).expect("an accident is misread"));
        done = run.end();
    }
    out + &text[done..]
}

/// The text that these characters are when their Windows-1252 bytes are read as UTF-8.
fn misread(run: &str) -> Option<String> {
    String::from_utf8(run.chars().map(windows_1252).collect::<Option<_>>()?).ok()
}

/// The byte of a character beyond ASCII.
fn windows_1252(c: char) -> Option<u8> {
    match c {
        '\u{80}'..='\u{ff}' => Some(c as u8),
        _ => WINDOWS_1252.iter().position(|&other| other == c).map(|index| 0x80 + index as u8),
    }
}

/// Whether nobody would write these characters but by misreading UTF-8. A capital letter and a sign (`É”`) is no
/// accident, unless the capital is `Â` or `Ã` or stands within a word; nor is a small letter and two signs (`é”—`),
/// unless the letter is `â` or `ï`, or the text Vietnamese. A control character is always one.
fn is_accident(run: &str, before: Option<char>) -> bool {
    let Some(meant) = misread(run) else { return false };
    let mut characters = meant.chars();
    match (characters.next(), characters.next()) {
        _ if run.contains(|c| ('\u{80}'..='\u{9f}').contains(&c)) => true,
        (Some('\u{80}'..='\u{ff}' | '\u{1e00}'..='\u{2fff}' | '\u{f000}'..='\u{ffff}'), None) => true,
        (Some('\u{100}'..='\u{7ff}'), None) => before.is_some_and(char::is_lowercase),
        (Some('\u{800}'..='\u{ffff}'), None) => false,
        _ => true,
    }
}

/// Character references decoded as browsers do, with or without their semicolon.
fn unescape(text: &str) -> String {
    static REFERENCE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"&(?:#([0-9]+);?|#[xX]([0-9a-fA-F]+);?|[^\t\n\x0c <&#;]{1,32};?)").expect("valid")
    });
    let decode = |found: &Captures| {
        if let Some(digits) = found.get(1) {
            return character(digits.as_str().parse());
        }
        if let Some(digits) = found.get(2) {
            return character(u32::from_str_radix(digits.as_str(), 16));
        }
        let whole = &found[0];
        let known = (3..=whole.len()).rev().find_map(|end| Some((entity(whole.get(..end)?)?, &whole[end..])));
        known.map_or(whole.to_string(), |(meant, rest)| format!("{meant}{rest}"))
    };
    REFERENCE.replace_all(text, decode).into_owned()
}

/// References with a semicolon only, as ftfy does; and names in capitals of what has a name in small letters.
fn unescape_whole(text: &str) -> String {
    static WHOLE: LazyLock<Regex> = LazyLock::new(|| Regex::new("&#?[0-9A-Za-z]{1,24};").expect("valid"));
    let decode = |found: &Captures| {
        let whole = &found[0];
        let meant = unescape(whole);
        if !meant.contains(';') {
            return meant;
        }
        let small =
            || (whole == whole.to_ascii_uppercase()).then(|| entity(&whole.to_ascii_lowercase())).flatten();
        match (meant == whole).then(small).flatten() {
            Some(small) => small.to_uppercase(),
            None => whole.to_string(),
        }
    };
    WHOLE.replace_all(text, decode).into_owned()
}

/// What a named reference such as `&amp;` stands for.
fn entity(name: &str) -> Option<&'static str> {
    htmlize::ENTITIES
        .get(name.as_bytes())
        .map(|meant| std::str::from_utf8(meant).expect("entities are UTF-8"))
}

/// What a numeric reference stands for: nothing if it is no character.
fn character(code: Result<u32, std::num::ParseIntError>) -> String {
    match code {
        Ok(code @ 0x80..=0x9f) => WINDOWS_1252[code as usize - 0x80].into(),
        Ok(1..=8 | 0xb | 0xe..=0x1f | 0x7f | 0xfdd0..=0xfdef) => String::new(),
        Ok(code @ ..=0x10_ffff) if code & 0xfffe == 0xfffe => String::new(),
        Ok(code @ 1..) => char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER).into(),
        _ => char::REPLACEMENT_CHARACTER.into(),
    }
}
