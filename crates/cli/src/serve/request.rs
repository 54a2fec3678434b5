//! From the options of a request to the flags of `diffbir restore`, read by its own parser.

use super::controls;
use crate::args::{Arguments, Restore};
use crate::outputs::Target;
use crate::restore::together::Wanted;
use crate::restore::{choose, output_format};
use diffbir::catalog::{self, Task};
use diffbir_imaging::Format;
use diffbir_serve::engine::{Kind, Options};
use diffbir_serve::problem::Problem;
use serde_json::{Value, json};

/// What a request asks for.
pub struct Request {
    /// As `restore` has it.
    pub arguments: Box<Restore>,
    /// What is to be done.
    pub task: Task,
    /// The format of results.
    pub format: Format,
    /// Whether its samples are compared.
    pub stability: bool,
    /// The options under their own names, with the seed that was drawn.
    pub options: Options,
    /// The same as flags.
    pub flags: Vec<String>,
}

/// Reads options, to which the name of a mask belongs where one was sent.
///
/// # Errors
/// Where one is unknown, or what the command line says of it.
pub fn read(given: &Options, mask: Option<&str>) -> Result<Request, Problem> {
    let mut options = Options::new();
    let mut flags = Vec::new();
    for (name, value) in given {
        let own = name.replace('-', "_");
        let Some(control) = controls::named(&own) else {
            return Err(Problem::refused(format!(
                "{name}: there is no such option; /v1/controls lists them"
            )));
        };
        let word = match (control.kind, value) {
            // Fields that are left empty are left out.
            (_, Value::Null) => continue,
            (kind, Value::String(text)) if text.is_empty() && kind != Kind::Text => continue,
            (Kind::Switch, _) => match switch(value) {
                Some(true) => None,
                Some(false) => continue,
                None => return Err(Problem::refused(format!("{name}: must be true or false"))),
            },
            (kind, Value::String(text)) if kind != Kind::Picture => Some(text.clone()),
            (Kind::Number | Kind::Integer, Value::Number(number)) => Some(number.to_string()),
            (Kind::Picture, _) => {
                return Err(Problem::refused(format!("{name}: is a picture, and wants to be sent")));
            }
            _ => return Err(Problem::refused(format!("{name}: is not of the right type"))),
        };
        let word = if own == "seed" { word.map(drawn).transpose()? } else { word };
        let flag = format!("--{}", own.replace('_', "-"));
        // With the value behind `=` nothing in it can be taken for a flag.
        flags.push(word.as_ref().map_or(flag.clone(), |word| format!("{flag}={word}")));
        let kept = match (control.kind, word) {
            (_, None) => Value::Bool(true),
            (Kind::Number | Kind::Integer, Some(word)) => word.parse().unwrap_or_else(|_| json!(word)),
            (_, Some(word)) => Value::String(word),
        };
        if options.insert(own, kept).is_some() {
            return Err(Problem::refused(format!("{name}: is given twice")));
        }
    }
    flags.extend(mask.map(|name| format!("--mask={name}")));
    let words = ["diffbir", "restore", "picture"].into_iter().chain(flags.iter().map(String::as_str));
    let arguments = Arguments::of_restore(words).map_err(Problem::refused)?;
    let model = arguments.model.as_str();
    let is_known = ["auto", "nano"].contains(&model)
        || catalog::set(model).is_some()
        || catalog::engine(model).is_some();
    if !is_known {
        return Err(Problem::refused(format!("model: there is no model {model}; /v1/models lists them")));
    }
    let faces = &arguments.faces;
    for (name, given) in [
        ("stage1", &arguments.stage1),
        ("face_engine", &faces.face_engine),
        ("background_engine", &faces.background_engine),
    ] {
        if let Some(engine) = given.as_ref().filter(|engine| catalog::engine(engine).is_none()) {
            return Err(Problem::refused(format!(
                "{name}: there is no engine {engine}; /v1/controls lists them"
            )));
        }
    }
    let told = |error: anyhow::Error| Problem::refused(format!("{error:#}"));
    let stability = Wanted::new(&arguments).map_err(told)?.is_some_and(|wanted| wanted.stability);
    let task = choose::task(&arguments).map_err(told)?;
    let format = output_format(&arguments, &Target::Beside).map_err(told)?;
    Ok(Request { arguments, task, format, stability, options, flags })
}

fn switch(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(value) => Some(*value),
        Value::String(text) => match text.as_str() {
            "true" | "on" | "1" => Some(true),
            "false" | "off" | "0" | "" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

/// The seed, which -1 leaves to chance, as on the reference's pages.
fn drawn(seed: String) -> Result<String, Problem> {
    if seed != "-1" {
        return Ok(seed);
    }
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(Problem::internal)?;
    // As large as those that the pages draw.
    Ok((u32::from_le_bytes(bytes) >> 1).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: Value) -> Result<Request, String> {
        let Value::Object(options) = options else { unreachable!("options are an object") };
        read(&options, None).map_err(|problem| problem.detail)
    }

    #[test]
    fn options_become_flags_of_the_command_line() {
        let request =
            of(json!({"steps": 5, "cfg-scale": "2.5", "stage1_only": false, "prompt": "--json", "seed": 7}))
                .unwrap();
        assert_eq!(request.flags, ["--cfg-scale=2.5", "--prompt=--json", "--seed=7", "--steps=5"]);
        assert_eq!(request.arguments.prompt.as_deref(), Some("--json"));
        assert_eq!(
            Value::Object(request.options),
            json!({"steps": 5, "cfg_scale": 2.5, "prompt": "--json", "seed": 7})
        );
    }

    #[test]
    fn a_seed_is_drawn_and_told() {
        let seed = |_| of(json!({"seed": -1})).unwrap().options["seed"].as_u64().unwrap();
        let (one, other) = (seed(0), seed(1));
        assert!(one <= 2_147_483_647 && one != other);
    }

    #[test]
    fn what_is_wrong_is_told_in_the_words_of_the_command_line() {
        let said = |options| of(options).err().unwrap();
        assert!(said(json!({"steps": 0})).contains("1..=1000"));
        assert!(said(json!({"sampler": "no"})).contains("spaced"));
        assert!(said(json!({"stage1_only": true, "steps": 4})).contains("--steps"));
        assert!(said(json!({"rescale_cfg": "maybe"})).contains("true or false"));
        assert!(said(json!({"steps": 4, "cfg-scale": 1, "cfg_scale": 2})).contains("twice"));
        assert!(said(json!({"quality": 50})).contains("without loss"));
        assert!(said(json!({"stability": true})).contains("give --samples 2 or more"));
    }

    #[test]
    fn a_mask_is_a_flag_that_is_sent_apart() {
        let with = |options: Value| read(options.as_object().unwrap(), Some("keep me.png"));
        assert_eq!(with(json!({})).unwrap().flags, ["--mask=keep me.png"]);
        assert!(with(json!({"fidelity": 0.5})).err().unwrap().detail.contains("cannot be used with"));
        assert!(of(json!({"mask": "/etc/passwd"})).err().unwrap().contains("wants to be sent"));
    }

    #[test]
    fn no_option_names_files_or_places() {
        for name in [
            "output",
            "input",
            "inputs",
            "save_intermediates",
            "ckpt",
            "config",
            "json",
            "existing",
            "device",
        ] {
            assert!(of(json!({name: "x"})).err().unwrap().contains("no such option"), "{name}");
        }
        for name in ["stage1", "face_engine", "background_engine"] {
            let options = json!({"task": "face-background", name: "/etc/passwd"});
            assert!(of(options).err().unwrap().contains("there is no engine"), "{name}");
        }
        assert!(of(json!({"model": "/etc/passwd"})).err().unwrap().contains("there is no model"));
    }
}
