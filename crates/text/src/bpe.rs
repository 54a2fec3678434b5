//! Byte-pair encoding (arXiv 1508.07909) with CLIP's vocabulary: the bytes of a word are symbols, of which
//! neighbours are merged in the order in which training found the merges.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

/// The vocabulary: in line n (from 0) the two symbols that make symbol 512 + n.
static MERGES: LazyLock<HashMap<&str, u32>> = LazyLock::new(|| {
    let mut merges = HashMap::with_capacity(crate::VOCABULARY);
    merges.extend(include_str!("../merges.txt").lines().zip(512..));
    merges
});

/// What the vocabulary's file writes behind the last symbol of a word.
const END: &str = "</w>";

/// The symbols of a word that is not empty.
pub(crate) fn symbols(word: &str) -> Vec<u32> {
    let mut written = String::new();
    let mut parts: Vec<(Range<usize>, u32)> = Vec::with_capacity(word.len());
    for byte in word.bytes() {
        let start = written.len();
        written.push(letter(byte));
        parts.push((start..written.len(), symbol(byte)));
    }
    let (last, id) = parts.last_mut().expect("a word");
    written.push_str(END);
    last.end = written.len();
    *id += 256;

    let mut line = String::new();
    let mut merged = |left: &Range<usize>, right: &Range<usize>| {
        line.clear();
        line.push_str(&written[left.clone()]);
        line.push(' ');
        line.push_str(&written[right.clone()]);
        MERGES.get(line.as_str()).copied()
    };
    // An earlier merge makes a smaller symbol.
    while let Some(first) = parts.windows(2).filter_map(|pair| merged(&pair[0].0, &pair[1].0)).min() {
        let mut next: Vec<(Range<usize>, u32)> = Vec::with_capacity(parts.len());
        let mut rest = parts.as_slice();
        while let [(left, id), tail @ ..] = rest {
            match tail {
                [(right, _), after @ ..] if merged(left, right) == Some(first) => {
                    next.push((left.start..right.end, first));
                    rest = after;
                }
                _ => {
                    next.push((left.clone(), *id));
                    rest = tail;
                }
            }
        }
        parts = next;
    }
    parts.into_iter().map(|(_, id)| id).collect()
}

/// The symbol of a byte within a word: printable letters of Latin-1 first, in order, then the others.
fn symbol(byte: u8) -> u32 {
    if is_printable(byte) { position(byte) } else { 188 + position(byte) }
}

/// How the vocabulary's file writes a byte.
fn letter(byte: u8) -> char {
    let code = if is_printable(byte) { byte.into() } else { 256 + position(byte) };
    char::from_u32(code).expect("below the surrogates")
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}

/// How many bytes before `byte` are of its kind.
fn position(byte: u8) -> u32 {
    (0..byte).filter(|&other| is_printable(other) == is_printable(byte)).count() as u32
}
