//! From flags and model to the settings of a run.

use crate::args::{self, ColourFix, Guidance, GuidanceLoss, GuidanceSpace, KeepSize, Restore, VaeTiling};
use anyhow::{Context, Result, bail};
use diffbir::catalog::{NEGATIVE_V21, PROMPT_V21, Task};
use diffbir::config::SamplingDefaults;
use diffbir::geometry::Geometry;
use diffbir::tiling::{Cut, Joining, Sliding, Tiling};
use diffbir::{Model, Options, restore};
use diffbir_diffusion::restoration::{Loss, Space};
use diffbir_diffusion::{Parameter, Parameters, Restoration, Sampler, StartPoint, Terminal, spaced, start};
use diffbir_imaging::{Outline, Photo, Raster, decode, outline};
use std::sync::Arc;

/// The reference's guidance scale where none is given, for all its models.
const REFERENCE_CFG_SCALE: f64 = 6.0;

/// The options, with a fidelity for each region where there is a mask, or why this model cannot honour them.
pub fn options(
    (arguments, regions): (&Restore, Option<Arc<Raster>>),
    model: &Model,
    task: Task,
    say: &mut dyn FnMut(&str),
) -> Result<Options> {
    let name = &model.config.name;
    if name == "nano" {
        match task {
            Task::Sr => {}
            Task::Face => bail!("--task face: {name} has no networks for faces: use --task sr"),
            Task::Denoise => bail!(
                "--task denoise: {name} has one network for all: use --task sr, with --upscale 1 to keep the size"
            ),
        }
    }
    if model.config.stage1.side_px().is_some() && task != Task::Face {
        bail!(
            "--model {name}: restores one aligned face that fills the picture: use --task face, or, for a photograph, \
             --task face-background with --face-engine {name}"
        );
    }
    let own_start = arguments.start_point_type == Some(StartPoint::Cond) || arguments.better_start;
    let terminal = model.config.stage2.as_ref().map(|stage2| stage2.terminal);
    if own_start && terminal == Some(Terminal::ZeroSnr) {
        let reason = "--start-point-type cond and --better-start change nothing";
        unheeded(arguments, format!("{reason}: {name} starts from pure noise"), say)?;
    }
    let has_stage2 = model.config.stage2.is_some();
    if arguments.no_stage1 && !has_stage2 {
        bail!("--no-stage1: {name} has no stage 2, so nothing would be left to do");
    }
    if let (false, Some(flag)) = (has_stage2, &arguments.of_stage2) {
        bail!("{flag}: {name} has no stage 2, which alone heeds it");
    }
    if !model.has_text() {
        let texts = [
            ("--prompt", arguments.prompt.is_some()),
            ("--negative-prompt", arguments.negative_prompt.is_some()),
        ];
        for (flag, _) in texts.into_iter().filter(|(_, given)| *given) {
            say(&format!("warning: {flag} changes nothing: {name} reads no text"));
        }
    }
    if !has_stage2 && !arguments.stage1_only {
        say(&format!("{name} has no stage 2: it cleans and enlarges, and adds no detail"));
    }
    let sized = [
        ("--image-size", arguments.image_size.is_some()),
        ("--keep-original-size no", arguments.keep_original_size == KeepSize::No),
    ];
    for (flag, _) in sized.into_iter().filter(|(_, given)| *given) {
        if arguments.task == args::Task::FaceBackground {
            bail!(
                "{flag}: faces are laid back at sizes of their own, so it does not go with --task face-background"
            );
        }
        if model.config.geometry == Geometry::Free {
            unheeded(arguments, format!("{flag}: changes nothing: {name} takes pictures of any size"), say)?;
        }
    }
    let defaults = if as_reference(arguments) { reference_defaults() } else { model.sampling() };
    let sampler = arguments.sampler.unwrap_or(defaults.sampler);
    if arguments.fidelity.is_some_and(|fidelity| fidelity > 0.0) && !sampler.starts_midway() {
        bail!("--fidelity: {sampler} can only start from noise, unlike spaced and edm_*");
    }
    // Who says from what to start asks for the whole way.
    let whole_way =
        arguments.start_point_type.is_some() || arguments.better_start || !sampler.starts_midway();
    let fidelity = if whole_way { 0.0 } else { defaults.fidelity };
    if arguments.fidelity.is_none() && defaults.fidelity > 0.0 && !sampler.starts_midway() {
        say(&format!("{sampler} starts from noise: --fidelity {} of {name} is left out", defaults.fidelity));
    }
    let cfg_scale = arguments.cfg_scale.unwrap_or(defaults.cfg_scale);
    let rises = cfg_scale > 1.0 || sampler == Sampler::DpmppM2 && cfg_scale < 1.0;
    if arguments.rescale_cfg && !rises {
        let reason = format!(
            "--rescale-cfg: changes nothing at a guidance scale of {cfg_scale}: give --cfg-scale above 1"
        );
        unheeded(arguments, reason, say)?;
    }
    let options = Options {
        upscale: arguments.upscale,
        image_size_px: arguments.image_size.map(usize::from),
        keep_size: arguments.keep_original_size == KeepSize::Yes,
        stage1: !arguments.no_stage1,
        tiling: tiling(arguments, say)?,
        sampler,
        parameters: parameters(arguments, sampler, defaults.s_noise, say)?,
        start: arguments.start_point_type.unwrap_or_default(),
        better_start: arguments.better_start,
        fidelity: arguments.fidelity.unwrap_or(fidelity),
        regions,
        steps: arguments.steps.map_or(defaults.steps, usize::from),
        cfg_scale,
        guidance_apart: false,
        rescale_cfg: arguments.rescale_cfg,
        prompt: arguments.prompt.clone().unwrap_or(defaults.prompt),
        negative_prompt: arguments.negative_prompt.clone().unwrap_or(defaults.negative_prompt),
        strength: arguments.strength,
        noise_aug: usize::from(arguments.noise_aug),
        restoration: restoration(&arguments.guidance, arguments, say)?,
        colour_fix: match arguments.color_fix {
            ColourFix::Wavelet => restore::ColourFix::Wavelet,
            ColourFix::Adain => restore::ColourFix::Adain,
            ColourFix::None => restore::ColourFix::None,
        },
    };
    model.check(&options)?;
    if let Some(reason) = never_pulled(&options) {
        unheeded(arguments, reason, say)?;
    }
    Ok(options)
}

/// What the file of `--mask` is, if it is given, for so many pictures.
pub fn mask_of(arguments: &Restore, pictures: usize) -> Result<Option<Outline>> {
    let Some(file) = &arguments.mask else { return Ok(None) };
    if pictures > 1 {
        bail!("--mask: is for one picture, and there are {pictures}");
    }
    Ok(Some(outline(file).context("--mask")?))
}

/// What it says.
pub fn regions_of(arguments: &Restore) -> Result<Option<Arc<Raster>>> {
    let mask = arguments.mask.as_deref().map(decode).transpose().context("--mask")?;
    Ok(mask.map(|mask| regions(&mask)))
}

/// What a mask says of the fidelity of each region: how light it is.
pub fn regions(mask: &Photo) -> Arc<Raster> {
    let picture = mask.to_raster();
    let channels = picture.channels;
    let light = |pixel: &[f32]| (pixel.iter().sum::<f32>() / channels as f32).clamp(0.0, 1.0);
    let data = picture.data.chunks_exact(channels).map(light).collect();
    Arc::new(Raster { channels: 1, data, ..picture })
}

/// How the sampler's estimates are pulled towards stage 1, if they are.
fn restoration(
    given: &Guidance,
    arguments: &Restore,
    say: &mut dyn FnMut(&str),
) -> Result<Option<Restoration>> {
    if !given.guidance {
        let flags = [
            ("--g-loss", given.g_loss.is_some()),
            ("--g-scale", given.g_scale.is_some()),
            ("--g-start", given.g_start.is_some()),
            ("--g-stop", given.g_stop.is_some()),
            ("--g-space", given.g_space.is_some()),
            ("--g-repeat", given.g_repeat.is_some()),
        ];
        for (flag, _) in flags.into_iter().filter(|(_, given)| *given) {
            unheeded(arguments, format!("{flag}: changes nothing without --guidance"), say)?;
        }
        return Ok(None);
    }
    let scale = given.g_scale.unwrap_or(0.0);
    if scale == 0.0 {
        unheeded(arguments, "--guidance: changes nothing without --g-scale, such as .5".into(), say)?;
    }
    let loss = match given.g_loss {
        Some(GuidanceLoss::Mse) => Loss::Mse,
        Some(GuidanceLoss::WMse) | None => Loss::WeightedMse,
    };
    let space = match (given.g_space, loss) {
        (Some(GuidanceSpace::Latent), Loss::WeightedMse) => {
            bail!(
                "--g-space latent: the loss w_mse looks for edges in pictures: give --g-loss mse, or --g-space rgb"
            )
        }
        (Some(GuidanceSpace::Latent), _) | (None, Loss::Mse) => Space::Latent,
        (Some(GuidanceSpace::Rgb), _) | (None, Loss::WeightedMse) => Space::Rgb,
    };
    let (start, stop) = (given.g_start.unwrap_or(1001), given.g_stop.unwrap_or(-1));
    let repeat = given.g_repeat.map_or(1, usize::from);
    Ok(Some(Restoration { loss, space, scale, start, stop, repeat }))
}

/// Why restoration guidance would never act, if so.
fn never_pulled(options: &Options) -> Option<String> {
    let guidance = options.restoration?;
    let (steps, first_t) = start::way(options.steps, options.least_fidelity());
    let visited = spaced::timesteps(first_t, steps);
    if visited.iter().any(|t| guidance.acts_at(*t)) {
        return None;
    }
    let visited: Vec<String> = visited.iter().rev().map(|t| (t + 1).to_string()).collect();
    Some(format!(
        "--guidance: no step lies below --g-start {} and above --g-stop {}, so that it would never act; the steps are at {}",
        guidance.start,
        guidance.stop,
        visited.join(", ")
    ))
}

/// Whether what is left out is as in the reference's `inference.py`. The article's demo has its own defaults,
/// which are those of its model.
pub fn as_reference(arguments: &Restore) -> bool {
    arguments.reference.input.is_some() && arguments.reference.config.is_none()
}

fn reference_defaults() -> SamplingDefaults {
    SamplingDefaults {
        cfg_scale: REFERENCE_CFG_SCALE,
        prompt: PROMPT_V21.into(),
        negative_prompt: NEGATIVE_V21.into(),
        ..SamplingDefaults::default()
    }
}

/// Sizes of tiles where none are given, the reference's, pixels.
const TILE_PX: usize = 512;
const STRIDE_PX: usize = 256;
const VAE_TILE_PX: usize = 256;

fn tiling(arguments: &Restore, say: &mut dyn FnMut(&str)) -> Result<Tiling> {
    let tiles = &arguments.tiles;
    for (flag, given, tiled, needed) in [
        ("--cleaner-tile-size", tiles.cleaner_tile_size, tiles.cleaner_tiled, "--cleaner-tiled"),
        ("--cleaner-tile-stride", tiles.cleaner_tile_stride, tiles.cleaner_tiled, "--cleaner-tiled"),
        (
            "--vae-encoder-tile-size",
            tiles.vae_encoder_tile_size,
            tiles.vae_encoder_tiled,
            "--vae-encoder-tiled",
        ),
        (
            "--vae-decoder-tile-size",
            tiles.vae_decoder_tile_size,
            tiles.vae_decoder_tiled,
            "--vae-decoder-tiled",
        ),
        ("--cldm-tile-size", tiles.cldm_tile_size, tiles.cldm_tiled, "--cldm-tiled"),
        ("--cldm-tile-stride", tiles.cldm_tile_stride, tiles.cldm_tiled, "--cldm-tiled"),
    ] {
        if given.is_some() && !tiled {
            unheeded(arguments, format!("{flag}: changes nothing without {needed}"), say)?;
        }
    }
    let Tiling { cleaner, encoder, decoder, joining, denoiser } = match as_reference(arguments) {
        true => Tiling { joining: Joining::Pooled, ..Tiling::WHOLE },
        false => Tiling::default(),
    };
    let whole = encoder == Cut::Whole && !(tiles.vae_encoder_tiled || tiles.vae_decoder_tiled);
    if tiles.vae_tiling.is_some() && whole {
        let reason = "--vae-tiling: changes nothing without --vae-encoder-tiled or --vae-decoder-tiled";
        unheeded(arguments, reason.into(), say)?;
    }
    let sliding = |asked, tile: Option<usize>, stride: Option<usize>, otherwise| match asked {
        true => {
            Cut::Tiles(Sliding { tile_px: tile.unwrap_or(TILE_PX), stride_px: stride.unwrap_or(STRIDE_PX) })
        }
        false => otherwise,
    };
    let square = |asked, tile: Option<usize>, otherwise| match asked {
        true => Cut::Tiles(tile.unwrap_or(VAE_TILE_PX)),
        false => otherwise,
    };
    Ok(Tiling {
        cleaner: sliding(tiles.cleaner_tiled, tiles.cleaner_tile_size, tiles.cleaner_tile_stride, cleaner),
        encoder: square(tiles.vae_encoder_tiled, tiles.vae_encoder_tile_size, encoder),
        decoder: square(tiles.vae_decoder_tiled, tiles.vae_decoder_tile_size, decoder),
        joining: tiles.vae_tiling.map_or(joining, |tiling| match tiling {
            VaeTiling::Exact => Joining::Exact,
            VaeTiling::Reference => Joining::Pooled,
            VaeTiling::Fast => Joining::Estimated { colour_fix: false },
            VaeTiling::FastColorFix => Joining::Estimated { colour_fix: true },
        }),
        denoiser: sliding(tiles.cldm_tiled, tiles.cldm_tile_size, tiles.cldm_tile_stride, denoiser),
    })
}

/// The settings that were given in place of defaults; one that the sampler would ignore is an error.
fn parameters(
    arguments: &Restore,
    sampler: Sampler,
    s_noise: f64,
    say: &mut dyn FnMut(&str),
) -> Result<Parameters> {
    let given = &arguments.parameters;
    let flags = [
        ("--s-churn", Parameter::SChurn, given.s_churn.is_some()),
        ("--s-tmin", Parameter::STmin, given.s_tmin.is_some()),
        ("--s-tmax", Parameter::STmax, given.s_tmax.is_some()),
        ("--s-noise", Parameter::SNoise, given.s_noise.is_some()),
        ("--eta", Parameter::Eta, given.eta.is_some()),
        ("--order", Parameter::Order, given.order.is_some()),
    ];
    for (flag, parameter, given) in flags {
        if given && !sampler.heeds().contains(&parameter) {
            let heeding: Vec<&str> = Sampler::ALL
                .into_iter()
                .filter(|sampler| sampler.heeds().contains(&parameter))
                .map(Sampler::name)
                .collect();
            let reason = format!("{flag}: {sampler} does not heed it, unlike {}", heeding.join(", "));
            unheeded(arguments, reason, say)?;
        }
    }
    let defaults = Parameters { s_noise, ..Parameters::default() };
    let parameters = Parameters {
        s_churn: given.s_churn.unwrap_or(defaults.s_churn),
        s_tmin: given.s_tmin.unwrap_or(defaults.s_tmin),
        s_tmax: given.s_tmax.unwrap_or(defaults.s_tmax),
        s_noise: given.s_noise.unwrap_or(defaults.s_noise),
        eta: given.eta.unwrap_or(defaults.eta),
        order: given.order.map_or(defaults.order, usize::from),
    };
    if let Some(reason) = of_noise(sampler, &parameters, &flags) {
        unheeded(arguments, reason, say)?;
    }
    Ok(parameters)
}

/// Refuses a setting that would change nothing. The reference takes all of them everywhere, so in its spelling that is
/// only told.
fn unheeded(arguments: &Restore, reason: String, say: &mut dyn FnMut(&str)) -> Result<()> {
    if !as_reference(arguments) {
        bail!("{reason}");
    }
    say(&format!("warning: {reason}"));
    Ok(())
}

/// What only shapes noise where the other settings leave none, in words.
fn of_noise(sampler: Sampler, parameters: &Parameters, flags: &[(&str, Parameter, bool)]) -> Option<String> {
    let heeds = |parameter| sampler.heeds().contains(&parameter);
    let needed = match parameters {
        Parameters { s_churn: 0.0, .. } if heeds(Parameter::SChurn) => "--s-churn",
        Parameters { eta: 0.0, .. } if heeds(Parameter::Eta) => "--eta",
        Parameters { s_tmin, s_tmax, .. } if heeds(Parameter::STmin) && s_tmin > s_tmax => {
            return Some(format!(
                "--s-tmin {s_tmin}: is above --s-tmax {s_tmax}, so that --s-churn would never act"
            ));
        }
        _ => return None,
    };
    let shaping = [Parameter::STmin, Parameter::STmax, Parameter::SNoise];
    let (flag, ..) = flags.iter().find(|(_, parameter, given)| *given && shaping.contains(parameter))?;
    Some(format!("{flag}: changes nothing where {sampler} adds no noise: give {needed} above 0"))
}
