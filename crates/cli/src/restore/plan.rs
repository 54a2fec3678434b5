//! `diffbir plan` and `--memory`: what a restoration will hold in memory, and the way that fits.

use super::choose::{self, Chosen};
use super::memory::Memory;
use super::picture::check_mask;
use super::seeds::Seeds;
use super::sweep::{self, Setting};
use super::together::{self, Wanted};
use super::{faces, settings};
use crate::args::{Limit, Restore};
use crate::inputs;
use crate::outputs::Target;
use crate::talk;
use anyhow::{Context, Result, anyhow, bail};
use diffbir::catalog::Task;
use diffbir::device::Opened;
use diffbir::plan::{Expected, Job, Plan, Together, Unfit};
use diffbir::{Options, Stage};
use diffbir_imaging::{Outline, Raster, check_size, outline};
use diffbir_nn::Device;
use indicatif::HumanBytes;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessesToUpdate, System, get_current_pid};

/// Of what is free so much is planned with: other programs go on meanwhile, and what is foretold is not exact.
const SHARE_OF_FREE: f64 = 0.9;

/// And no more than this of all that there is: a small container has little more than the program itself.
const SHARE_OF_ALL: f64 = 0.95;

/// What of the program itself comes into memory as it works.
const PROGRAM_BYTES: u64 = 6 << 20;

/// The limit that is named as enough is so much larger than what is counted: what the program holds before differs a little
/// from run to run.
const MARGIN_BYTES: u64 = 2 << 20;

/// A picture's name and what its file says.
type Named = (PathBuf, Outline);

/// A plan, and what it is for.
pub struct Settled {
    pub plan: Plan,
    /// The picture that needs most.
    picture: Named,
    /// Width and height of its result.
    output: (usize, usize),
    model: String,
    limit: Option<u64>,
    /// Whether the networks run on the processor, where what is foretold was measured.
    on_cpu: bool,
}

/// What `diffbir plan` is asked for.
pub fn run(arguments: &Restore) -> Result<ExitCode> {
    let named = match &arguments.reference.input {
        Some(folder) => std::slice::from_ref(folder),
        None => &arguments.inputs,
    };
    // A size stands for a picture that is not there yet.
    let (sizes, files): (Vec<_>, Vec<_>) = named.iter().partition(|named| size_named(named).is_some());
    let files: Vec<PathBuf> = files.into_iter().cloned().collect();
    let found = inputs::find(&files, arguments.recursive, &Target::Beside);
    let of_size = |(width, height)| Outline::rgb(width, height);
    let mut pictures: Vec<Named> =
        sizes.into_iter().filter_map(|named| Some((named.clone(), of_size(size_named(named)?)))).collect();
    check_sizes(&pictures)?;
    found.problems.iter().for_each(|problem| talk::say(format_args!("error: {}", problem.message)));
    let (read, failed) = outlines_of(found.inputs.iter().map(|input| input.path.as_path()));
    failed.iter().for_each(|reason| talk::say(format_args!("error: {reason}")));
    pictures.extend(read);
    let failed = found.problems.len() + failed.len();
    if pictures.is_empty() {
        return Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    let task = choose::task(arguments)?;
    let Opened { device, instead, .. } = arguments.device.open()?;
    instead.iter().for_each(|why| talk::say(format_args!("--device: {why}")));
    let chosen = choose::at_rest(arguments, task, &device)?;
    let choices = sweep::settings(arguments)?;
    let mask = settings::mask_of(arguments, pictures.len())?;
    let settled = settle(arguments, &choices, (&chosen, task, &device, mask), &pictures)?;
    let written = match arguments.json {
        true => talk::data(format!("{}\n", settled.to_json()).as_bytes()),
        false => talk::data(format!("{}\n", settled.table(None)).as_bytes()),
    };
    let told = talk::ended(written);
    Ok(if failed > 0 { ExitCode::FAILURE } else { told })
}

/// The size that a word such as `4000x3000` is, where no file has this name.
fn size_named(word: &Path) -> Option<(usize, usize)> {
    let (width, height) = word.to_str()?.split_once('x')?;
    let size = (width.parse().ok()?, height.parse().ok()?);
    (!word.exists()).then_some(size)
}

/// Refuses sizes that no picture has.
fn check_sizes(pictures: &[Named]) -> Result<()> {
    let side = |px: usize| u32::try_from(px).unwrap_or(u32::MAX);
    for (named, outline) in pictures {
        let (width, height) = outline.size();
        if width == 0 || height == 0 {
            bail!("{}: a picture has one pixel at least each way", named.display());
        }
        check_size((side(width), side(height)), &named.display().to_string())?;
    }
    Ok(())
}

/// What the files of pictures say; of those that cannot be read, why.
pub fn outlines_of<'a>(paths: impl Iterator<Item = &'a Path>) -> (Vec<Named>, Vec<String>) {
    let (mut read, mut failed) = (Vec::new(), Vec::new());
    for path in paths {
        match outline(path) {
            Ok(outline) => read.push((path.to_path_buf(), outline)),
            Err(error) => failed.push(error.to_string()),
        }
    }
    (read, failed)
}

/// The plan for all of these pictures, under each of the settings, with a model at rest.
///
/// # Errors
/// When none fits, saying what would, and when something is asked for whose needs are not known.
pub fn settle(
    arguments: &Restore,
    choices: &[Setting],
    (chosen, task, device, mask): (&Chosen, Task, &Device, Option<Outline>),
    pictures: &[Named],
) -> Result<Settled> {
    if faces::asked(arguments)? {
        let instead = if arguments.memory.is_some() { ", or leave out --memory" } else { "" };
        bail!(
            "there is no plan for faces that are restored by themselves, for what they need is not known before they are found: use --task sr{instead}"
        );
    }
    // What is refused anyway is refused before a plan is told.
    Seeds::new(arguments, chosen.set, task)?;
    if let Some(mask) = &mask {
        pictures.iter().try_for_each(|(_, outline)| check_mask(mask.size(), outline.size()))?;
    }
    let model = &chosen.model;
    let on_cpu = diffbir_nn::runs_on_cpu(device);
    let stage2 = model.has_stage2() && !arguments.stage1_only;
    let before = held_now() + PROGRAM_BYTES;
    let built_in = model.config.name == "nano" && stage2;
    let file = if built_in { diffbir::NANO.len() as u64 } else { 0 };
    let limit = match arguments.memory {
        None => None,
        Some(Limit::Bytes(bytes)) => Some(bytes),
        Some(Limit::Auto) if on_cpu => {
            let Free { bytes, most } =
                free().context("--memory auto: this system does not say how much memory is free")?;
            Some((before + (bytes as f64 * SHARE_OF_FREE) as u64).min((most as f64 * SHARE_OF_ALL) as u64))
        }
        Some(Limit::Auto) => {
            bail!(
                "--memory auto: nobody says how much of a graphics card's memory is free: give a size such as 6GB"
            )
        }
    };
    // It is not read before there is a plan: one that asks for all of stage 2 stands for it.
    let regions = mask.map(|_| Arc::new(Raster::new(1, 1, 1)));
    let options: Result<Vec<Options>> = choices
        .iter()
        .map(|choice| {
            let arguments = choice.arguments.as_deref().unwrap_or(arguments);
            settings::options((arguments, regions.clone()), model, task, &mut |_| {})
        })
        .collect();
    let options = options?;
    let samples = usize::from(arguments.batch_size.min(arguments.samples));
    // Only the first picture, under the first settings, finds the file unread.
    let (before, file) = if pictures.len() * options.len() > 1 { (before + file, 0) } else { (before, file) };
    let (wanted, columns) = (Wanted::new(arguments)?, together::columns(arguments));
    let results = options.len() * usize::from(arguments.samples);
    let making = |photo, result| wanted.map_or(0, |wanted| wanted.bytes((results, columns), photo, result));
    let earlier = results - usize::from(arguments.samples);
    let together = wanted.map(|_| Together { results, earlier, making: &making });
    let jobs: Vec<Job> = pictures
        .iter()
        .flat_map(|(_, photo)| options.iter().map(move |options| (*photo, options)))
        .map(|(photo, options)| Job {
            config: &model.config,
            // Networks that one setting needs are in memory for all.
            stage2,
            options,
            photo,
            mask,
            samples,
            device,
            before,
            file,
            undoes: arguments.safe,
            together,
        })
        .collect();
    let precision = choose::precision(arguments.precision, device);
    let may_round = arguments.precision.is_none() && on_cpu;
    let of_job = |index: usize| &pictures[index / options.len()];
    let plan = diffbir::plan::choose(&jobs, precision, may_round, limit);
    let plan = plan.map_err(|unfit| refusal(unfit, &of_job, limit.unwrap_or_default()))?;
    let picture = of_job(plan.neediest).clone();
    let options = &jobs[plan.neediest].options;
    let (output, _) =
        model.config.geometry.output_size(picture.1.width_px, picture.1.height_px, options.upscale);
    Ok(Settled { plan, picture, output, model: model.config.name.clone(), limit, on_cpu })
}

/// Why nothing fits, and what would.
fn refusal<'a>(unfit: Unfit, of_job: &impl Fn(usize) -> &'a Named, limit: u64) -> anyhow::Error {
    let (neediest, needs, stage, upscale, stage1) = match unfit {
        Unfit::Error(error) => return anyhow!(error).context("--memory"),
        Unfit::Short { neediest, needs, stage, upscale, stage1 } => (neediest, needs, stage, upscale, stage1),
    };
    let (path, outline) = of_job(neediest);
    let (width, height) = outline.size();
    let mut fits: Vec<String> = Vec::new();
    fits.extend(upscale.map(|(factor, needs)| format!("--upscale {factor} ({})", HumanBytes(needs))));
    fits.extend(stage1.map(|needs| format!("--stage1-only ({})", HumanBytes(needs))));
    fits.push(format!("--memory {}MiB", (needs + MARGIN_BYTES).div_ceil(1 << 20)));
    anyhow!(
        "--memory {}: {} ({width} x {height}) needs {} at least, for {}; what fits: {}",
        HumanBytes(limit),
        path.display(),
        HumanBytes(needs),
        stage_name(stage),
        fits.join(", ")
    )
}

/// Bytes that the program holds.
fn held_now() -> u64 {
    memory_stats::memory_stats().map_or(0, |stats| stats.physical_mem as u64)
}

/// Why `most` bytes may be too many where there is `room` for so many.
fn doubt_of(most: u64, room: u64) -> Option<String> {
    (most > room).then(|| {
        format!(
            "warning: this takes {} and only {} are free here: the system may end the program half-way; \
             --memory auto plans for what is free",
            HumanBytes(most),
            HumanBytes(room)
        )
    })
}

/// Memory that can be had, bytes.
struct Free {
    /// Besides what the program holds.
    bytes: u64,
    /// All that there is.
    most: u64,
}

/// What the system says, and what the limits of a container leave.
fn free() -> Option<Free> {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    let free = Free { bytes: system.available_memory(), most: system.total_memory() };
    let own = get_current_pid().ok().and_then(|pid| {
        let own = ProcessesToUpdate::Some(&[pid]);
        system.refresh_processes_specifics(own, false, ProcessRefreshKind::nothing());
        system.process(pid)?.cgroup_limits()
    });
    let contained = own.map_or(Free { bytes: u64::MAX, most: u64::MAX }, |limits| Free {
        bytes: limits.total_memory.saturating_sub(limits.rss),
        most: limits.total_memory,
    });
    (free.bytes > 0)
        .then(|| Free { bytes: free.bytes.min(contained.bytes), most: free.most.min(contained.most) })
}

/// How far what was foretold is from what was measured.
fn percent(foretold: u64, measured: u64) -> String {
    match (100.0 * (foretold as f64 / measured as f64 - 1.0)).round() as i64 {
        0 => "0 %".into(),
        off => format!("{off:+} %"),
    }
}

fn stage_name(stage: Option<Stage>) -> String {
    stage.map_or("load".into(), |stage| stage.to_string())
}

impl Settled {
    /// Why it may not fit after all, where more is allowed than there is.
    pub fn doubt(&self) -> Option<String> {
        let free = self.on_cpu.then(free)??;
        doubt_of(self.plan.most(), (held_now() + free.bytes).min(free.most))
    }

    /// What is done so that it fits, in words.
    fn measures(&self) -> Vec<String> {
        let choices = &self.plan.choices;
        let mut measures = vec![format!("weights in {}", format!("{:?}", choices.precision).to_lowercase())];
        measures.push(if choices.networks_apart {
            "networks are read for their stage and dropped after it".into()
        } else {
            "networks stay in memory".into()
        });
        if choices.guidance_apart {
            measures.push("the two predictions of a step come one after the other".into());
        }
        measures.extend(choices.most_px.map(|px| format!("tiles of {px} pixels at most")));
        measures
    }

    /// The plan as a table; with what was measured once it was carried out.
    pub fn table(&self, measured: Option<&Memory>) -> String {
        let ((path, outline), (out_width, out_height)) = (&self.picture, self.output);
        let (width, height) = outline.size();
        let limit = self.limit.map_or(String::new(), |limit| format!(" of {}", HumanBytes(limit)));
        let mut lines = vec![format!(
            "{}, {width} x {height} to {out_width} x {out_height}, by {}: {}{limit}",
            path.display(),
            self.model,
            HumanBytes(self.plan.most()),
        )];
        lines.push(format!("  {}", self.measures().join(", ")));
        if !self.on_cpu {
            lines.push("  on a graphics card these numbers were never measured".into());
        }
        let heads = ["stage", "weights", "tiles", "predicted"];
        let mut rows = vec![heads.map(String::from).to_vec()];
        rows.extend(self.plan.stages.iter().map(|expected| {
            let Expected { stage, weights, tiles: (count, side), most } = expected;
            let tiles = match (stage, count) {
                (None, _) => "-".into(),
                (_, 1) => "1".into(),
                _ => format!("{count} of {side} px"),
            };
            vec![stage_name(*stage), HumanBytes(*weights).to_string(), tiles, HumanBytes(*most).to_string()]
        }));
        // What a card holds is not the process's.
        if let Some(measured) = measured.filter(|_| self.on_cpu) {
            rows[0].push("measured".into());
            for (row, expected) in rows[1..].iter_mut().zip(&self.plan.stages) {
                row.push(match measured.most_of(expected.stage) {
                    Some(bytes) => format!("{} ({})", HumanBytes(bytes), percent(expected.most, bytes)),
                    None => "-".into(),
                });
            }
        }
        let columns = rows[0].len();
        let wide: Vec<usize> = (0..columns)
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
            .collect();
        for row in &rows {
            let cells = row.iter().zip(&wide).map(|(cell, wide)| format!("{cell:<wide$}"));
            lines.push(format!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end()));
        }
        lines.join("\n")
    }

    fn to_json(&self) -> serde_json::Value {
        let choices = &self.plan.choices;
        let stages = self.plan.stages.iter().map(|expected| {
            json!({
                "stage": stage_name(expected.stage),
                "weights": expected.weights,
                "tiles": expected.tiles.0,
                "tile_px": expected.tiles.1,
                "predicted": expected.most,
            })
        });
        let stages: Vec<_> = stages.collect();
        json!({
            "input": self.picture.0.display().to_string(),
            "width": self.picture.1.width_px,
            "height": self.picture.1.height_px,
            "model": self.model,
            "limit": self.limit,
            "predicted": self.plan.most(),
            "unmeasured": !self.on_cpu,
            "precision": format!("{:?}", choices.precision).to_lowercase(),
            "networks_apart": choices.networks_apart,
            "guidance_apart": choices.guidance_apart,
            "most_px": choices.most_px,
            "stages": stages,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_stands_for_a_picture() {
        let of = |word: &str| size_named(Path::new(word));
        assert_eq!(of("4000x3000"), Some((4000, 3000)));
        assert_eq!((of("photo.jpg"), of("3x"), of("axb"), of("-1x3")), (None, None, None, None));
        let refused = |(width, height)| check_sizes(&[("a".into(), Outline::rgb(width, height))]).is_err();
        assert!(refused((0, 3)) && refused((3, 0)) && refused((1 << 40, 1)) && !refused((1, 1)));
    }

    #[test]
    fn nothing_is_neither_more_nor_less() {
        let of = |foretold| percent(foretold, 1000);
        assert_eq!((of(997), of(1003), of(1000)), ("0 %".into(), "0 %".into(), "0 %".into()));
        assert_eq!((of(994), of(1150)), ("-1 %".into(), "+15 %".into()));
    }

    #[test]
    fn more_than_there_is_is_doubted() {
        assert_eq!(doubt_of(5 << 20, 5 << 20), None);
        let doubt = doubt_of(6 << 20, 5 << 20).unwrap();
        assert!(doubt.contains("takes 6.00 MiB and only 5.00 MiB are free"), "{doubt}");
    }

    #[test]
    fn something_is_free() {
        assert!(free().is_some_and(|free| free.bytes > 1 << 20 && free.most > free.bytes));
    }
}
