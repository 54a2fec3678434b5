//! `--sweep`: the same pictures under several settings.

use crate::args::{Arguments, Restore};
use anyhow::{Result, anyhow, bail};
use std::ffi::{OsStr, OsString};
use std::str::FromStr;

/// Flags that can be swept: they change neither model nor sizes.
const FLAGS: [&str; 17] = [
    "steps",
    "cfg-scale",
    "fidelity",
    "sampler",
    "strength",
    "noise-aug",
    "start-point-type",
    "color-fix",
    "seed",
    "s-churn",
    "s-tmin",
    "s-tmax",
    "s-noise",
    "eta",
    "order",
    "g-scale",
    "g-repeat",
];

/// Results of a picture that are made at the most.
const MOST: usize = 400;

/// Values of one flag.
#[derive(Clone, Debug, PartialEq)]
pub struct Sweep {
    flag: &'static str,
    values: Vec<String>,
}

impl Sweep {
    /// How many values there are.
    pub fn count(&self) -> usize {
        self.values.len()
    }
}

impl FromStr for Sweep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some((name, values)) = text.split_once('=') else {
            return Err("is no setting: it is written as steps=10,20".into());
        };
        let name = name.trim_start_matches('-').replace('_', "-");
        let name = if name == "cfg" { "cfg-scale" } else { name.as_str() };
        let Some(flag) = FLAGS.into_iter().find(|flag| *flag == name) else {
            return Err(format!("there is no such setting to sweep; there are {}", FLAGS.join(", ")));
        };
        let values: Vec<String> = values.split(',').map(|value| value.trim().to_string()).collect();
        if values.iter().any(String::is_empty) {
            return Err("a value is missing".into());
        }
        if let Some(twice) = (1..values.len()).find(|&at| values[..at].contains(&values[at])) {
            return Err(format!("{} is given twice", values[twice]));
        }
        Ok(Self { flag, values })
    }
}

/// One choice of settings.
pub struct Setting {
    /// Behind the names of its results.
    pub suffix: String,
    /// In words.
    pub label: String,
    /// The command line with it; nothing where none is swept.
    pub arguments: Option<Box<Restore>>,
}

/// Whether every setting has a fidelity of 1, which is stage 1 itself. A mask goes with none.
pub fn draws_nothing(arguments: &Restore) -> bool {
    let swept = arguments.sweep.iter().find(|sweep| sweep.flag == "fidelity");
    match swept {
        Some(sweep) => sweep.values.iter().all(|value| value.parse() == Ok(1.0)),
        None => arguments.fidelity == Some(1.0),
    }
}

/// All choices of values, the last sweep's changing first; without a sweep the one that there is.
///
/// # Errors
/// When the parser of the command line refuses a value, or when there are too many.
pub fn settings(arguments: &Restore) -> Result<Vec<Setting>> {
    let words: Vec<OsString> = std::env::args_os().collect();
    choices(&arguments.sweep, usize::from(arguments.samples), &words)
}

fn choices(sweeps: &[Sweep], samples: usize, words: &[OsString]) -> Result<Vec<Setting>> {
    if sweeps.is_empty() {
        return Ok(vec![Setting { suffix: String::new(), label: String::new(), arguments: None }]);
    }
    if let Some(twice) =
        (1..sweeps.len()).find(|&at| sweeps[..at].iter().any(|sweep| sweep.flag == sweeps[at].flag))
    {
        bail!("--sweep: {} is given twice", sweeps[twice].flag);
    }
    let count = sweeps.iter().fold(samples, |count, sweep| count.saturating_mul(sweep.values.len()));
    if count > MOST {
        bail!("--sweep: makes {count} results a picture, more than {MOST}: give fewer values or --samples");
    }
    let mut choices: Vec<Vec<(&str, &str)>> = vec![Vec::new()];
    for sweep in sweeps {
        let with = |choice: &Vec<(&'static str, _)>| {
            let choice = choice.clone();
            sweep.values.iter().map(move |value| {
                let mut choice = choice.clone();
                choice.push((sweep.flag, value.as_str()));
                choice
            })
        };
        choices = choices.iter().flat_map(with).collect();
    }
    let rest = without_sweeps(words);
    choices
        .into_iter()
        .map(|choice| {
            let flags = choice.iter().map(|(flag, value)| OsString::from(format!("--{flag}={value}")));
            let arguments = Arguments::of_restore(rest.iter().cloned().chain(flags));
            let each = |between: &str, words: [&str; 2]| {
                let named: Vec<String> = choice
                    .iter()
                    .map(|(flag, value)| format!("{}{flag}{}{value}", words[0], words[1]))
                    .collect();
                named.join(between)
            };
            Ok(Setting {
                suffix: file_name(&each("", ["_", "-"])),
                label: each(", ", ["", " "]),
                arguments: Some(arguments.map_err(|reason| anyhow!("--sweep: {reason}"))?),
            })
        })
        .collect()
}

/// No letter that a disk does not take.
fn file_name(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_alphanumeric() || "_-.+".contains(letter) { letter } else { '-' })
        .collect()
}

/// A command line less its sweeps.
fn without_sweeps(words: &[OsString]) -> Vec<OsString> {
    let is_value = |word: &OsStr| {
        let word = word.to_string_lossy();
        word.contains('=') && !word.starts_with('-')
    };
    let mut rest = Vec::new();
    let mut within = false;
    for word in words {
        if word == "--sweep" {
            within = true;
        } else if !(within && is_value(word) || word.to_string_lossy().starts_with("--sweep=")) {
            within = false;
            rest.push(word.clone());
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(sweeps: &[&str], words: &[&str]) -> Result<Vec<Setting>> {
        let sweeps: Vec<Sweep> = sweeps.iter().map(|text| text.parse().unwrap()).collect();
        let words: Vec<OsString> = ["diffbir", "restore"].iter().chain(words).map(OsString::from).collect();
        choices(&sweeps, 1, &words)
    }

    #[test]
    fn every_choice_is_a_command_line_of_its_own() {
        let words = ["a.png", "--sweep", "steps=10,20", "cfg=1,4.5", "--seed", "7"];
        let found = of(&["steps=10,20", "cfg=1,4.5"], &words).unwrap();
        let suffixes: Vec<&str> = found.iter().map(|setting| setting.suffix.as_str()).collect();
        assert_eq!(
            suffixes,
            [
                "_steps-10_cfg-scale-1",
                "_steps-10_cfg-scale-4.5",
                "_steps-20_cfg-scale-1",
                "_steps-20_cfg-scale-4.5"
            ]
        );
        assert_eq!(found[3].label, "steps 20, cfg-scale 4.5");
        let last = found[3].arguments.as_ref().unwrap();
        assert_eq!((last.steps, last.cfg_scale, last.seed, last.inputs.len()), (Some(20), Some(4.5), 7, 1));
        assert!(last.sweep.is_empty());
        let one = of(&[], &words).unwrap();
        assert!(one.len() == 1 && one[0].arguments.is_none() && one[0].suffix.is_empty());
    }

    #[test]
    fn what_cannot_be_swept_is_refused() {
        let told = |text: &str| text.parse::<Sweep>().unwrap_err();
        assert!(told("steps").contains("steps=10,20"));
        assert!(told("model=a,b").contains("there are steps, cfg-scale"));
        assert!(told("steps=1,,2").contains("missing") && told("steps=1,1").contains("twice"));
        let refused = |sweeps: &[&str], words: &[&str]| of(sweeps, words).err().unwrap().to_string();
        assert!(refused(&["steps=1", "steps=2"], &["a"]).contains("steps is given twice"));
        assert!(refused(&["steps=0"], &["a"]).starts_with("--sweep: invalid value '0' for '--steps"));
        assert!(refused(&["steps=3"], &["a", "--steps", "4"]).contains("cannot be used multiple times"));
        let many: Vec<String> = (1..=401).map(|value| value.to_string()).collect();
        assert!(refused(&[&format!("seed={}", many.join(","))], &["a"]).contains("401 results"));
    }
}
