//! Tokens of prompts, as CLIP's text encoder wants them (reference 1.4; CLIP: arXiv 2103.00020). Knows no
//! tensors.
//!
//! A prompt is cleaned, cut into words, and each word's bytes are merged into the vocabulary's symbols.
//! The vocabulary is built in and read when the first prompt comes.

mod bpe;
mod clean;

use regex::Regex;
use std::sync::LazyLock;

/// Tokens of every prompt, ends and padding included.
pub const CONTEXT: usize = 77;

/// Number of token ids.
pub const VOCABULARY: usize = 49408;

const START: u32 = 49406;
const END: u32 = 49407;

/// The token ids of a prompt: a start, the prompt, an end, and 0 to the full length. Of a prompt that is too
/// long, the rest is left out.
pub fn tokens(prompt: &str) -> [u32; CONTEXT] {
    let mut ids = vec![START];
    for word in words(&clean::clean(prompt)) {
        match word {
            "<start_of_text>" => ids.push(START),
            "<end_of_text>" => ids.push(END),
            _ => ids.extend(bpe::symbols(word)),
        }
    }
    ids.truncate(CONTEXT - 1);
    ids.push(END);
    ids.resize(CONTEXT, 0);
    ids.try_into().expect("resized")
}

/// Cuts a cleaned prompt: words, single digits, runs of signs; an English contraction is a word of its own.
fn words(text: &str) -> impl Iterator<Item = &str> {
    static WORD: LazyLock<Regex> = LazyLock::new(|| {
        let specials = "<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d";
        // Signs without regard to case as well: that leaves out U+0345, which folds to a letter.
        Regex::new(&format!(r"(?i:{specials})|\p{{L}}+|\p{{N}}|(?i:[^\s\p{{L}}\p{{N}}]+)")).expect("valid")
    });
    WORD.find_iter(text).map(|word| word.as_str())
}
