//! Token ids of many prompts against the reference's tokenizer (`goldens/README.md`).

use diffbir_text::{CONTEXT, VOCABULARY, tokens};

#[derive(serde::Deserialize)]
struct Golden {
    kind: String,
    prompt: String,
    /// Up to the padding.
    ids: Vec<u32>,
}

fn goldens() -> Vec<Golden> {
    serde_json::from_str(include_str!("goldens/prompts.json")).expect("a list of prompts")
}

#[test]
fn prompts_have_the_references_tokens() {
    let mut wrong = Vec::new();
    for Golden { kind, prompt, mut ids } in goldens() {
        ids.resize(CONTEXT, 0);
        // What only ftfy's full repair of mojibake mends: if one agrees by now, it is of another kind.
        if (tokens(&prompt)[..] == ids) == (kind == "exotic") {
            wrong.push(format!("{kind}: {prompt:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_long_prompt_is_cut_and_still_ends() {
    let ids = tokens(&"word ".repeat(500));
    assert_eq!((ids[0], ids[75], ids[76]), (49406, ids[1], 49407));
}

#[test]
fn every_id_is_of_the_vocabulary() {
    let largest = goldens().iter().flat_map(|golden| tokens(&golden.prompt)).max();
    assert_eq!(largest, Some(VOCABULARY as u32 - 1));
}
