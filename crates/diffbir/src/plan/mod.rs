//! What a restoration will hold in memory, told before anything is loaded, and the way of restoring that fits into a limit.
//!
//! The most of each stage is counted: weights, from the shapes of tensors; activations, layer by layer as the networks
//! run on the CPU; pictures, as they come and go between stages.

mod bands;
mod denoiser;
mod ledger;
mod photograph;
mod pictures;
mod search;
mod stage1;
mod steps;

pub use search::{Plan, Unfit, choose};

use crate::config::ModelConfig;
use crate::error::{Error, Stage};
use crate::geometry::Geometry;
use crate::harm::reduced;
use crate::restore::{ColourFix, Options};
use crate::stage1::Way;
use crate::stage2;
use crate::tiling::{Cut, Sliding, Tiling};
use diffbir_diffusion::Schedule;
use diffbir_diffusion::restoration::Space;
use diffbir_imaging::Outline;
use diffbir_imaging::tiles::{sliding_windows, vae_tiles};
use diffbir_models::controlnet::ControlNet;
use diffbir_nn::Device;
use diffbir_nn::params::{Precision, Sizes, sizes_in};
use ledger::Ledger;
use photograph::resized;
use pictures::{Pictures, Size, autoencoder_work, denoiser_tiles, raster};
use steps::Work;

/// A photograph to be restored.
#[derive(Clone, Copy)]
pub struct Job<'a> {
    /// What the model is made of.
    pub config: &'a ModelConfig,
    /// Whether its stage 2 runs.
    pub stage2: bool,
    /// How it is restored.
    pub options: &'a Options,
    /// The photograph.
    pub photo: Outline,
    /// The mask of `--mask`, if there is one.
    pub mask: Option<Outline>,
    /// Results that are computed at once.
    pub samples: usize,
    /// Where the networks run.
    pub device: &'a Device,
    /// What the process holds before, bytes.
    pub before: u64,
    /// What comes into memory beside that as networks are read for the first time: the file of a model that is a part of the
    /// program.
    pub file: u64,
    /// Whether stage 1 is put where a result contradicts the photograph.
    pub undoes: bool,
    /// What is made of all its results, if anything is.
    pub together: Option<Together<'a>>,
}

/// What is made of all results of a picture, which stay in memory for it, 8 bits a value.
#[derive(Clone, Copy)]
pub struct Together<'a> {
    /// How many there are.
    pub results: usize,
    /// How many of them are there as the last settings begin.
    pub earlier: usize,
    /// Bytes that making it takes beside them, for a photograph and results of these sizes.
    pub making: &'a dyn Fn((usize, usize), (usize, usize)) -> usize,
}

impl Together<'_> {
    /// Bytes of so many results of this size, and of what stage 1 made.
    fn kept(results: usize, (width, height): Size) -> usize {
        3 * (results + 1) * width * height
    }
}

/// What can be chosen so that a restoration needs less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choices {
    /// In which numbers weights are held.
    pub precision: Precision,
    /// Whether the two predictions of a guided step come one after the other.
    pub guidance_apart: bool,
    /// Whether networks are read for their stage and dropped after it.
    pub networks_apart: bool,
    /// Side of tiles at most, pixels.
    pub most_px: Option<usize>,
}

/// What is expected of a stage.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// Nothing before the first, where models are loaded and photographs read.
    pub stage: Option<Stage>,
    /// Bytes of weights that are in memory.
    pub weights: u64,
    /// Tiles, and the longer side of the largest in pixels of what the stage works on; one where it works in one piece.
    pub tiles: (usize, usize),
    /// The most that the process holds, bytes.
    pub most: u64,
}

/// Side of the smallest tiles of the denoiser, pixels: what it was trained on.
const DENOISER_PX: usize = 512;

impl Choices {
    /// `options` with what is chosen; tiles that were asked for stay as they are.
    pub fn applied(&self, options: &Options) -> Options {
        let mut options = Options { guidance_apart: self.guidance_apart, ..options.clone() };
        if let Some(most_px) = self.most_px {
            let Tiling { cleaner, encoder, decoder, denoiser, joining: _ } = &mut options.tiling;
            for cut in [encoder, decoder] {
                *cut = if *cut == Cut::Auto { Cut::AtMost(most_px) } else { *cut };
            }
            for (cut, least_px) in [(cleaner, 0), (denoiser, DENOISER_PX)] {
                *cut = if *cut == Cut::Auto { Cut::AtMost(most_px.max(least_px)) } else { *cut };
            }
        }
        options
    }
}

/// Bytes of weights, network by network in the order in which they are read.
#[derive(Clone, Copy, Debug, Default)]
struct Weights {
    stage1: Sizes,
    autoencoder: Sizes,
    unet: Sizes,
    control: Sizes,
    text: Sizes,
}

impl Weights {
    fn of(job: &Job, precision: Precision) -> Result<Self, Error> {
        let (config, device) = (job.config, job.device);
        let stage1 = sizes_in(precision, device, |params| config.stage1.build(params))?;
        let Some(stage2) = config.stage2.as_ref().filter(|_| job.stage2) else {
            return Ok(Self { stage1, ..Self::default() });
        };
        let text = stage2.text.as_ref();
        let text = text.map(|text| sizes_in(precision, device, |params| text.build(params))).transpose()?;
        Ok(Self {
            stage1,
            autoencoder: stage2.autoencoder.sizes_in(precision, device)?,
            text: text.unwrap_or_default(),
            unet: sizes_in(precision, device, |params| stage2.unet.build(params))?,
            control: sizes_in(precision, device, |params| ControlNet::new(params, &stage2.unet))?,
        })
    }

    fn all(&self) -> [Sizes; 5] {
        [self.stage1, self.autoencoder, self.unet, self.control, self.text]
    }
}

/// The most that networks hold while they are read one after the other, and what they hold then.
fn read(networks: &[Sizes]) -> (usize, usize) {
    let mut held = Ledger::default();
    for network in networks {
        held.need(network.reading);
        held.take(network.held);
    }
    (held.most(), networks.iter().map(|network| network.held).sum())
}

/// What each stage of a job is expected to hold, in the order of stages.
///
/// # Errors
/// When the model or what is asked cannot be foretold.
pub fn expected(job: &Job, choices: &Choices) -> Result<Vec<Expected>, Error> {
    let options = choices.applied(job.options);
    let job = &Job { options: &options, ..*job };
    let weights = Weights::of(job, choices.precision)?;
    let pictures = Pictures::of(job);
    let mask = job.mask.as_ref().map(photograph::mask).unwrap_or_default();
    let photo = pictures.photo.bytes() + mask.held();
    // A layer on a card works in the numbers of its weight.
    let value = if diffbir_nn::runs_on_cpu(job.device) { 4 } else { choices.precision.bytes() };
    let count = Count { job, pictures, value };
    let whole: usize = weights.all().iter().map(|network| network.held).sum();
    // Of a file that is a part of the program what was read of it stays in memory.
    let mut touched = 0;
    let kept = |pick: fn(&Together) -> usize| {
        job.together.as_ref().map_or(0, |together| Together::kept(pick(together), pictures.output))
    };
    let (earlier, all_kept) = (kept(|together| together.earlier), kept(|together| together.results));
    let mut expected = |stage, networks: &[Sizes], tiles, (pictures, activations): (usize, usize)| {
        let drawn = job.stage2 && matches!(stage, Some(Stage::Sample | Stage::Decode));
        let kept = if drawn || !job.stage2 { all_kept } else { earlier };
        let (reading, held) = match choices.networks_apart {
            true => read(networks),
            false => (0, whole),
        };
        touched = whole.min(touched + held);
        let before = job.before as usize + (job.file as f64 * touched as f64 / whole as f64) as usize;
        let most = before + photo + kept + pictures + reading.max(held + activations);
        Expected { stage, weights: held as u64, tiles, most: most as u64 }
    };
    let all = weights.all();
    let (reading, held) = if choices.networks_apart { (0, 0) } else { read(&all) };
    // A photograph is decoded, and may be turned upright or put in other order; where there is no stage 1, it is brought to the size that
    // stage 2 sees.
    let mut load = held + photo + pictures.photo.decoding;
    if !options.stage1 && job.stage2 {
        load = load.max(held + photo + count.input().most());
    }
    let file = if choices.networks_apart { 0 } else { job.file };
    // A mask is read before networks are.
    let load = ((job.before + file) as usize + reading.max(load)).max(job.before as usize + mask.most());
    let load = Expected { stage: None, weights: held as u64, tiles: (1, 0), most: load as u64 };
    let mut stages = vec![load];
    if options.stage1 || !job.stage2 {
        let (tiles, most) = count.stage1();
        stages.push(expected(Some(Stage::Stage1), &[weights.stage1], tiles, (0, most)));
    }
    if let Some(config) = job.config.stage2.as_ref().filter(|_| job.stage2) {
        let rest = raster(pictures.seen);
        let (tiles, most) = count.encode(config)?;
        let opacity = photograph::opacity(&pictures.photo, pictures.output);
        let most = most.max(opacity.most());
        stages.push(expected(Some(Stage::Encode), &[weights.autoencoder], tiles, (rest, most)));
        // The mask at the size of the result.
        let rest = rest + opacity.held() + job.mask.map_or(0, |_| raster(pictures.seen) / 3);
        let (tiles, most) = count.sample(config);
        let networks = [weights.unet, weights.control];
        let mut sample = expected(Some(Stage::Sample), &networks, tiles, (rest, most));
        // The text encoder has gone when the denoiser comes.
        let text = expected(Some(Stage::Sample), &[weights.text], tiles, (rest, 0));
        sample.most = sample.most.max(text.most);
        stages.push(sample);
        let (tiles, most, after) = count.decode(config);
        let mut decode = expected(Some(Stage::Decode), &[weights.autoencoder], tiles, (rest, most));
        // The autoencoder has gone when a result is compared and encoded.
        decode.most = decode.most.max(expected(Some(Stage::Decode), &[], tiles, (rest, after)).most);
        stages.push(decode);
    }
    if let (Some(together), Some(last)) = (job.together, stages.last_mut()) {
        let held = if choices.networks_apart { 0 } else { whole };
        let making = (together.making)(pictures.photo.size(), pictures.output);
        let most = (job.before + job.file) as usize + held + photo + all_kept + making;
        last.most = last.most.max(most as u64);
    }
    Ok(stages)
}

/// Bytes of pictures and activations.
struct Count<'a> {
    job: &'a Job<'a>,
    pictures: Pictures,
    /// Bytes of an activation.
    value: usize,
}

type Tiles = (usize, usize);

impl Count<'_> {
    /// The photograph at the size that the network sees, as floats, which are left.
    fn input(&self) -> Ledger {
        photograph::seen(&self.pictures.photo, self.pictures.input)
    }

    /// Stage 1, and all that follows where it is the end.
    fn stage1(&self) -> (Tiles, usize) {
        let Pictures { photo, input, cleaned, seen, output, .. } = self.pictures;
        let config = &self.job.config.stage1;
        let scale = config.upscale();
        let mut held = self.input();
        let (count, tile) = self.stage1_tiles();
        let made = raster((tile.0 * scale, tile.1 * scale));
        match self.pictures.way {
            Way::Whole => self.cleaned(&mut held, input),
            Way::Exact(..) => {
                held.take(raster(cleaned));
                held.take(raster(tile));
                self.cleaned(&mut held, tile);
                // What is kept of it.
                held.need(made);
                held.free(made + raster(tile));
            }
            Way::Blended(_) => {
                // Sums, the weight of each pixel, those of a tile.
                let weights = 4 * (cleaned.0 * cleaned.1 + (tile.0 * scale).pow(2));
                held.take(raster(cleaned) + weights);
                held.take(raster(tile));
                self.cleaned(&mut held, tile);
                held.free(made + raster(tile) + weights);
            }
        }
        if cleaned != seen {
            resized(&mut held, cleaned, seen);
            held.free(raster(cleaned));
        }
        held.free(raster(input));
        if !self.job.stage2 {
            // What stage 1 made stays beside its copies, which samples are.
            self.finished(&mut held);
            held.take((self.job.samples - 1) * raster(output));
            let opacity = photograph::opacity(&photo, output);
            held.need(opacity.most());
            held.take(opacity.held());
            photograph::encoded(&mut held, &photo, output);
        }
        ((count, tile.0.max(tile.1)), held.most())
    }

    /// How many tiles stage 1 has, and the size of the largest.
    fn stage1_tiles(&self) -> (usize, Size) {
        let (width, height) = self.pictures.input;
        match self.pictures.way {
            Way::Whole => (1, (width, height)),
            Way::Exact(sliding, reach_px) => {
                let tiles = vae_tiles(height, width, sliding.tile_px, reach_px);
                let sizes = tiles.iter().map(|tile| (tile.input.width(), tile.input.height()));
                (tiles.len(), sizes.max_by_key(|size| size.0 * size.1).unwrap_or((width, height)))
            }
            Way::Blended(Sliding { tile_px, stride_px }) => {
                (sliding_windows(height, width, tile_px, stride_px).len(), (tile_px, tile_px))
            }
        }
    }

    /// The network on a picture of this size, whose result is left.
    fn cleaned(&self, held: &mut Ledger, (width, height): Size) {
        let config = &self.job.config.stage1;
        let multiple = config.multiple_px();
        let padded = (width.next_multiple_of(multiple), height.next_multiple_of(multiple));
        let scale = config.upscale();
        let (large, result) =
            (raster((padded.0 * scale, padded.1 * scale)), raster((width * scale, height * scale)));
        held.take(raster(padded));
        held.need(self.value * stage1::values(config, [padded.1, padded.0]));
        // The result leaves the device, and is cut to size.
        held.take(large);
        held.need(large);
        held.turn(large, result);
        held.free(raster(padded));
    }

    /// A tile of a picture beside the tensor that is made of it.
    fn cut(&self, work: &Work, cell_px: usize) -> usize {
        match work {
            Work::Tiles(_) | Work::Apart(_) => 12 * work.largest() * cell_px.pow(2),
            Work::Whole(_) | Work::Bands { .. } => 0,
        }
    }

    fn encode(&self, config: &crate::config::Stage2Config) -> Result<(Tiles, usize), Error> {
        let (Pictures { seen, filled, .. }, options) = (self.pictures, self.job.options);
        let mut held = Ledger::default();
        if options.better_start {
            held.take(raster(seen));
            held.need(raster(seen));
        }
        held.take(raster(filled));
        let cell_px = config.autoencoder.downsampling();
        let work = autoencoder_work(&options.tiling, filled, cell_px, false);
        held.need(self.cut(&work, 1) + self.value * steps::values(&config.autoencoder, false, &work));
        let tiled = denoiser_tiles(&options.tiling, filled, cell_px).is_some();
        match options.restoration.map(|how| how.space) {
            Some(Space::Latent) if !tiled => {
                let whole = Work::Whole(filled.0 * filled.1);
                held.need(self.value * steps::values(&config.autoencoder, false, &whole));
            }
            Some(Space::Rgb) => {
                return Err(Error::Option(
                    "what restoration guidance between pictures needs cannot be foretold: guide between latents".into(),
                ));
            }
            _ => {}
        }
        Ok((work.told(), held.most()))
    }

    fn sample(&self, config: &crate::config::Stage2Config) -> (Tiles, usize) {
        let (filled, options) = (self.pictures.filled, self.job.options);
        let cell_px = config.autoencoder.downsampling();
        let size = (filled.1 / cell_px, filled.0 / cell_px);
        let guided = config.text.is_some() && (options.cfg_scale != 1.0 || options.rescale_cfg);
        let conditions = if guided && !options.guidance_apart { 2 } else { 1 };
        let multiple = config.unet.multiple();
        let (tiles, cells) = match denoiser_tiles(&options.tiling, filled, cell_px) {
            Some(tiles) => {
                let count = sliding_windows(size.0, size.1, tiles.tile, tiles.stride).len();
                ((count, tiles.tile * cell_px), tiles.tile.pow(2))
            }
            None => {
                let side = |cells: usize| cells.next_multiple_of(multiple);
                ((1, filled.0.max(filled.1)), side(size.0) * side(size.1))
            }
        };
        let schedule = Schedule::new(config.terminal);
        let settings = stage2::settings((&schedule, config.prediction), options);
        // The condition, at rest and for the network, and the sampler's own.
        let (drawing, waiting) = settings.latents(options.sampler);
        let latent = 4 * config.autoencoder.latent_channels() * size.0 * size.1 * self.job.samples;
        let values = denoiser::values(&config.unet, conditions * self.job.samples, cells);
        (tiles, ((4 + drawing) * latent).max((4 + waiting) * latent + self.value * values))
    }

    /// The part of a result that is the picture, at the size of the output, which is left beside it.
    fn finished(&self, held: &mut Ledger) {
        let Pictures { seen, output, .. } = self.pictures;
        held.take(raster(seen));
        // The article's program resizes in any case.
        if seen != output || self.job.config.geometry == Geometry::Article {
            resized(held, seen, output);
            held.free(raster(seen));
        }
    }

    /// The decoder and the colours; then all that follows.
    fn decode(&self, config: &crate::config::Stage2Config) -> (Tiles, usize, usize) {
        let (Pictures { photo, seen, filled, output, .. }, options) = (self.pictures, self.job.options);
        let mut held = Ledger::default();
        let others = self.job.samples - 1;
        held.take(others * raster(seen));
        let cell_px = config.autoencoder.downsampling();
        let work = autoencoder_work(&options.tiling, filled, cell_px, true);
        let decoded = raster(filled);
        held.take(decoded);
        let mut network = held;
        if matches!(work, Work::Whole(_) | Work::Bands { .. }) {
            // It comes at the end.
            network.free(decoded);
        }
        network.need(self.value * steps::values(&config.autoencoder, true, &work));
        network.need(2 * 12 * work.largest() * cell_px.pow(2));
        held.turn(decoded, raster(seen));
        held.need(match options.colour_fix {
            ColourFix::Wavelet => 3 * raster(seen),
            ColourFix::Adain => raster(seen),
            ColourFix::None => 0,
        });
        self.finished(&mut held);
        held.free((1 + others) * raster(seen));
        held.take(others * raster(output));
        let mut after = Ledger::default();
        after.take(held.held());
        // Where the result contradicts the photograph: stage 1 at the size of the result, and all of them reduced.
        let mut harm = after;
        harm.take(raster(seen));
        harm.take(raster(output));
        let small = reduced(photo.size());
        harm.need(
            2 * raster(small) + photograph::seen(&photo, small).most().max(raster((small.0, output.1))),
        );
        if self.job.undoes {
            // How much of each pixel, and a copy of the result.
            harm.need(raster(output) / 3 + raster(output));
        }
        photograph::encoded(&mut after, &photo, output);
        let (count, side) = work.told();
        ((count, side * cell_px), held.most().max(network.most()), after.most().max(harm.most()))
    }
}
