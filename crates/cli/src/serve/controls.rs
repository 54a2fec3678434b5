//! The options that requests may have: which flags of `restore` they are, how the page presents them. What a flag means,
//! takes and defaults to is the command line's own.

use crate::args::{Arguments, OF_STAGE2};
use clap::builder::ValueParser;
use clap::{Arg, ArgAction, CommandFactory};
use diffbir::catalog::{ENGINES, Engine, SETS};
use diffbir_diffusion::Sampler;
use diffbir_serve::engine::{Choice, Control, Controls, Kind, Options, Preset};
use serde_json::json;
use std::sync::LazyLock;

/// How the page presents a flag: its name, a label, the part of the page, from where to where and in which steps a
/// number can be chosen there (the ranges of the reference's pages where they have the control), and what it changes
/// nothing without ([`Control::needs`]).
struct Shown(&'static str, &'static str, &'static str, Option<[f64; 3]>, Option<&'static str>);

/// What a server takes. Nothing here names files of the server, and nothing may: a picture is sent.
const SHOWN: [Shown; 57] = [
    Shown("task", "Task", BASIC, None, None),
    Shown("model", "Model", BASIC, None, None),
    Shown("upscale", "Upscale", BASIC, Some([1.0, 8.0, 0.5]), None),
    Shown("prompt", "Prompt", BASIC, None, None),
    Shown("samples", "Results", BASIC, Some([1.0, 12.0, 1.0]), None),
    Shown("stability", "Map of where they differ", BASIC, None, Some("samples>1")),
    Shown("seed", "Seed", BASIC, Some([-1.0, 2_147_483_647.0, 1.0]), None),
    Shown("format", "File format", FILE, None, None),
    Shown("quality", "Quality", FILE, Some([1.0, 100.0, 1.0]), None),
    Shown("stage1_only", "Stop after stage 1", STAGES, None, None),
    Shown("no_stage1", "Skip stage 1", STAGES, None, None),
    Shown("stage1", "Another stage 1", STAGES, None, None),
    Shown("denoise", "Noise taken away", STAGES, Some([0.0, 1.0, 0.05]), Some("model=realesr-general-x4v3")),
    Shown("image_size", "Image size", STAGES, Some([256.0, 768.0, 64.0]), None),
    Shown("keep_original_size", "Keep original size", STAGES, None, None),
    Shown("fidelity", "Fidelity", STAGES, Some([0.0, 1.0, 0.05]), None),
    Shown("mask", "Mask of regions", STAGES, None, None),
    Shown("safe", "Do no harm", STAGES, None, None),
    Shown("strength", "Control strength", STAGES, Some([0.0, 2.0, 0.01]), None),
    Shown("noise_aug", "Noise level of condition", STAGES, Some([0.0, 199.0, 1.0]), None),
    Shown("color_fix", "Colour correction", STAGES, None, None),
    Shown("negative_prompt", "Negative prompt", SAMPLER, None, None),
    Shown("cfg_scale", "Guidance scale", SAMPLER, Some([0.1, 30.0, 0.1]), None),
    Shown("rescale_cfg", "Gradually increase guidance", SAMPLER, None, None),
    Shown("steps", "Steps", SAMPLER, Some([1.0, 100.0, 1.0]), None),
    Shown("sampler", "Sampler", SAMPLER, None, None),
    Shown("s_churn", "s_churn", SAMPLER, Some([0.0, 40.0, 1.0]), None),
    Shown("s_tmin", "s_tmin", SAMPLER, Some([0.0, 300.0, 10.0]), None),
    Shown("s_tmax", "s_tmax", SAMPLER, Some([0.0, 300.0, 10.0]), None),
    Shown("s_noise", "s_noise", SAMPLER, Some([1.0, 1.1, 0.001]), None),
    Shown("eta", "eta", SAMPLER, Some([0.0, 1.0, 0.05]), None),
    Shown("order", "order", SAMPLER, Some([1.0, 8.0, 1.0]), None),
    Shown("start_point_type", "Start from", SAMPLER, None, None),
    Shown("better_start", "Better start", SAMPLER, None, None),
    Shown("guidance", "Restoration guidance", SAMPLER, None, None),
    Shown("g_loss", "Its loss", SAMPLER, None, Some("guidance")),
    Shown("g_scale", "Its scale", SAMPLER, Some([0.0, 2.0, 0.05]), Some("guidance")),
    Shown("g_start", "From timestep", SAMPLER, Some([1.0, 1001.0, 1.0]), Some("guidance")),
    Shown("g_stop", "Down to timestep", SAMPLER, Some([-1.0, 999.0, 1.0]), Some("guidance")),
    Shown("g_space", "Compared as", SAMPLER, None, Some("guidance")),
    Shown("g_repeat", "Pulls a step", SAMPLER, Some([1.0, 10.0, 1.0]), Some("guidance")),
    Shown("seed_mode", "Seeds", SAMPLER, None, None),
    Shown("batch_size", "Results at once", SAMPLER, Some([1.0, 12.0, 1.0]), None),
    Shown("faces", "Which faces", FACES, None, IN_PHOTOGRAPHS),
    Shown("face_engine", "Face engine", FACES, None, IN_PHOTOGRAPHS),
    Shown("face_blend", "Its share", FACES, Some([0.0, 1.0, 0.05]), Some("face_engine")),
    Shown("background_engine", "Background engine", FACES, None, IN_PHOTOGRAPHS),
    Shown("cleaner_tiled", "Tiled stage 1", TILES, None, None),
    Shown("cleaner_tile_size", "Its tile size", TILES, Some([256.0, 1024.0, 64.0]), Some("cleaner_tiled")),
    Shown("cleaner_tile_stride", "Its tile stride", TILES, Some([128.0, 512.0, 32.0]), Some("cleaner_tiled")),
    Shown("vae_encoder_tiled", "Tiled encoder", TILES, None, None),
    Shown(
        "vae_encoder_tile_size",
        "Its tile size",
        TILES,
        Some([256.0, 1024.0, 64.0]),
        Some("vae_encoder_tiled"),
    ),
    Shown("vae_decoder_tiled", "Tiled decoder", TILES, None, None),
    Shown(
        "vae_decoder_tile_size",
        "Its tile size",
        TILES,
        Some([256.0, 1024.0, 64.0]),
        Some("vae_decoder_tiled"),
    ),
    Shown("vae_tiling", "How both join tiles", TILES, None, None),
    Shown("cldm_tiled", "Tiled diffusion", TILES, None, None),
    Shown("cldm_tile_size", "Its tile size", TILES, Some([512.0, 1024.0, 64.0]), Some("cldm_tiled")),
];
const STRIDE: Shown =
    Shown("cldm_tile_stride", "Its tile stride", TILES, Some([256.0, 512.0, 32.0]), Some("cldm_tiled"));

/// What holds on a command line alone.
const OF_COMMANDS: [&str; 5] = [
    " (see `diffbir models list`), or a file of one",
    ", or a file of one. The reference's RealESRGAN is the engine that enlarges as --upscale does, its DiffBIR the model",
    " (see `diffbir models list`) or a model file",
    ", or a model file",
    " (a wrong name lists them)",
];

const BASIC: &str = "Basic";
const FILE: &str = "File";
const STAGES: &str = "Stages";
const SAMPLER: &str = "Guidance and sampler";
const FACES: &str = "Faces in photographs";
const TILES: &str = "Tiles";

const IN_PHOTOGRAPHS: Option<&str> = Some("task=face-background");

static CONTROLS: LazyLock<Vec<Control>> = LazyLock::new(|| {
    let mut command = Arguments::command();
    command.build();
    let restore = command.find_subcommand("restore").expect("there is a command restore");
    let control = |shown: &Shown| {
        let flag = restore.get_arguments().find(|flag| flag.get_id() == shown.0);
        control(shown, flag.expect("every control is a flag"))
    };
    SHOWN.iter().chain([&STRIDE]).map(control).collect()
});

/// The option of this name.
pub fn named(name: &str) -> Option<&'static Control> {
    CONTROLS.iter().find(|control| control.name == name)
}

/// All of them, and sets to start from.
pub fn all() -> Controls {
    Controls { options: CONTROLS.clone(), presets: presets() }
}

fn control(&Shown(name, label, group, range, needs): &Shown, flag: &Arg) -> Control {
    let choices = choices(name, flag);
    let kind = match flag.get_action() {
        ArgAction::SetTrue => Kind::Switch,
        _ if name == "mask" => Kind::Picture,
        _ if !choices.is_empty() => Kind::Choice,
        _ if range.is_none() => Kind::Text,
        _ if takes_fractions(flag) => Kind::Number,
        _ => Kind::Integer,
    };
    let help = flag.get_help().map(ToString::to_string).unwrap_or_default();
    let help = OF_COMMANDS.iter().fold(help, |help, phrase| help.replace(phrase, ""));
    let default = flag.get_default_values().first().map(|value| value.to_string_lossy().into_owned());
    let (help, told) = without_default(&help);
    Control {
        name: name.into(),
        label,
        help: if name == "seed" { format!("{help}; -1 draws one") } else { help },
        group,
        kind,
        default: default.filter(|_| kind != Kind::Switch).or(told),
        choices,
        range,
        needs,
        stage2: OF_STAGE2.contains(&name),
    }
}

/// Whether the parser of a flag is one for fractions.
fn takes_fractions(flag: &Arg) -> bool {
    flag.get_value_parser().type_id() == ValueParser::from(|text: &str| text.parse::<f64>()).type_id()
}

/// The words that a flag takes.
fn choices(name: &str, flag: &Arg) -> Vec<Choice> {
    let word = |value: &str| Choice { value: value.into(), help: String::new() };
    let engine = |engine: &Engine| Choice { value: engine.name.into(), help: engine.about.into() };
    match name {
        "model" => {
            let models = ["auto", "nano"].into_iter().chain(SETS.iter().map(|set| set.name)).map(word);
            models.chain(ENGINES.iter().map(engine)).collect()
        }
        "face_engine" => ENGINES.iter().map(engine).collect(),
        "stage1" | "background_engine" => ENGINES.iter().filter(|engine| !engine.faces).map(engine).collect(),
        "sampler" => Sampler::ALL.into_iter().map(|sampler| word(sampler.name())).collect(),
        "start_point_type" => ["noise", "cond"].map(word).into(),
        "format" => ["png", "jpeg", "webp", "tiff"].map(word).into(),
        _ if matches!(flag.get_action(), ArgAction::SetTrue) => Vec::new(),
        _ => flag
            .get_possible_values()
            .iter()
            .filter(|value| !value.is_hide_set())
            .map(|value| Choice {
                value: value.get_name().into(),
                help: value.get_help().map(ToString::to_string).unwrap_or_default(),
            })
            .collect(),
    }
}

/// Help without what it says of the default, and that, where it is a value.
fn without_default(help: &str) -> (String, Option<String>) {
    let Some((before, after)) = help.split_once("default: ") else { return (help.into(), None) };
    let before = before.trim_end().trim_end_matches('[').trim_end_matches([';', ' ']);
    let told = after.split([']', ',']).next().unwrap_or_default().trim();
    let is_value = told.parse::<f64>().is_ok() || matches!(told, "noise" | "png" | "all" | "exact");
    let open = before.matches('[').count() > before.matches(']').count();
    (format!("{before}{}", if open { "]" } else { "" }), is_value.then(|| told.into()))
}

/// The article's example, and the reference's pages as they begin.
fn presets() -> Vec<Preset> {
    let options = |value: serde_json::Value| match value {
        serde_json::Value::Object(options) => options,
        _ => Options::new(),
    };
    let negative =
        |name: &str| SETS.iter().find(|set| set.name == name).map(|set| set.habits.negative_prompt);
    let v1 = |prompt: &str| {
        options(json!({
            "model": "v1", "task": "sr", "upscale": 1, "steps": 50, "sampler": "spaced", "cfg_scale": 1,
            "strength": 1, "seed": 231, "samples": 1, "color_fix": "wavelet",
            "prompt": prompt, "negative_prompt": negative("v1"),
        }))
    };
    vec![
        Preset {
            name: "Article's example",
            help: "Model v1 as its page begins, the article's prompt, and a city of ours in place of the article's.",
            options: v1("a city with tall buildings, forest trees, snowy mountain background"),
            prepared: Options::new(),
            sample: Some("city.png"),
        },
        Preset {
            name: "v1 page",
            help: "Model v1 as the page of the article begins.",
            options: v1(""),
            prepared: Options::new(),
            sample: None,
        },
        Preset {
            name: "v2.1 page",
            help: "Model v2.1 as the reference's page begins.",
            options: options(json!({
                "model": "v2.1", "task": "sr", "upscale": 4, "steps": 10, "sampler": "edm_dpm++_3m_sde", "cfg_scale": 8,
                "strength": 1, "noise_aug": 0, "seed": 231, "cldm_tiled": true, "cldm_tile_size": 512,
                "cldm_tile_stride": 256,
            })),
            prepared: options(json!({
                "cleaner_tile_size": 256, "cleaner_tile_stride": 128,
                "vae_encoder_tile_size": 256, "vae_decoder_tile_size": 256,
            })),
            sample: None,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_say_what_the_command_line_says() {
        let steps = named("steps").unwrap();
        assert!(
            steps.kind == Kind::Integer && steps.default.is_none() && !steps.help.contains('['),
            "{steps:?}"
        );
        let upscale = named("upscale").unwrap();
        assert!(upscale.kind == Kind::Number && upscale.default.as_deref() == Some("4"), "{upscale:?}");
        let churn = named("s_churn").unwrap();
        assert!(churn.kind == Kind::Number && churn.default.as_deref() == Some("0"), "{churn:?}");
        assert!(churn.help.ends_with("edm_dpm_2]"), "{churn:?}");
        assert_eq!(named("rescale_cfg").unwrap().kind, Kind::Switch);
        assert_eq!(named("sampler").unwrap().choices.len(), 14);
        assert_eq!(named("task").unwrap().choices.len(), 4, "what is not built is not shown");
        assert_eq!(named("cldm_tile_size").unwrap().default.as_deref(), Some("512"));
        assert!(named("output").is_none());
        let help = flags_help();
        assert!(OF_COMMANDS.iter().all(|phrase| help.contains(phrase)), "{help}");
    }

    /// The help of all flags.
    fn flags_help() -> String {
        let mut command = Arguments::command();
        command.build();
        let restore = command.find_subcommand("restore").unwrap();
        restore.get_arguments().filter_map(|flag| Some(flag.get_help()?.to_string())).collect()
    }

    #[test]
    fn presets_are_options_that_are_taken() {
        for preset in presets() {
            let read = crate::serve::request::read(&preset.options, None);
            assert!(read.is_ok(), "{}: {:?}", preset.name, read.err());
            let waits = |(name, _): (&String, _)| named(name).is_some_and(|control| control.needs.is_some());
            assert!(preset.prepared.iter().all(waits), "{}", preset.name);
        }
    }
}
