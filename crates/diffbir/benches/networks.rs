//! Seconds of the networks at official size, their weights drawn at random.
//!
//! `cargo bench --workspace --bench networks -- [part of a name] [--runs 3] [--precision f32|bf16|f16] [--device cpu] [--side 512]`
//!
//! One line a network: the median of the runs, after one that does not count; on a graphics card, which wakes up
//! slowly, after half a second of them, and with what the first one took, and the memory that is held after it. The runs
//! take two inputs in turns, and each has to give what the first of its input gave. `RAYON_NUM_THREADS` says how many threads. `bench/reference.py` runs
//! this and the reference in turns. `vae-whole`, `vae-bands` and `vae-tiles` encode and decode whole, in bands, and in
//! the reference's tiles of 512 pixels.

use burn::tensor::{Device, Distribution, Tensor};
use diffbir::device::DeviceChoice;
use diffbir_imaging::tiles::{VaeTile, Window, band_rows, vae_tiles};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::kl::{KlAutoencoder, KlConfig};
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::tiled::Statistics;
use diffbir_models::unet::{ResBlock, Transformer, UnetConfig};
use diffbir_nn::params::{Init, RandomInit, Source, build_in};
use diffbir_nn::{Params, Precision, WeightError};
use std::hint::black_box;
use std::ops::ControlFlow;
use std::time::Instant;

/// The same numbers over and over: drawing a billion would take longer than the runs.
struct Repeated(Vec<f32>);

impl Source for Repeated {
    fn values(&mut self, _: &str, shape: &[usize], init: Init) -> Result<Vec<f32>, WeightError> {
        let (count, fan_in) = (shape.iter().product(), shape.iter().skip(1).product::<usize>());
        let bound = match init {
            Init::Constant(value) if value != 0.0 => return Ok(vec![value; count]),
            _ => (fan_in.max(1) as f32).powf(-0.5),
        };
        Ok(self.0.iter().cycle().take(count).map(|value| value * bound).collect())
    }
}

/// What was asked for on the command line.
struct Asked {
    name: String,
    runs: usize,
    precision: Precision,
    device: Device,
    side_px: usize,
}

impl Asked {
    fn read() -> Self {
        let mut asked = Self {
            name: String::new(),
            runs: 3,
            precision: Precision::F32,
            device: Device::flex(),
            side_px: 512,
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} wants a value"));
            match argument.as_str() {
                "--bench" => {}
                "--runs" => asked.runs = value().parse().expect("--runs wants a number"),
                "--side" => asked.side_px = value().parse().expect("--side wants a number"),
                "--device" => {
                    let choice: DeviceChoice = value().parse().expect("a device");
                    asked.device = choice.open().expect("the device starts").device;
                }
                "--precision" => {
                    asked.precision = match value().as_str() {
                        "f32" => Precision::F32,
                        "bf16" => Precision::Bf16,
                        "f16" => Precision::F16,
                        _ => panic!("--precision wants f32, bf16 or f16"),
                    }
                }
                _ => asked.name = argument,
            }
        }
        asked
    }

    fn wants(&self, name: &str) -> bool {
        name.contains(&self.name)
    }

    fn made<N>(&self, network: impl FnOnce(&Params) -> Result<N, WeightError>) -> N {
        // A prime number of them, so that rows of weights differ.
        let drawn = RandomInit { seed: 0 }.values("", &[65_537], Init::BiasOf(1)).expect("no file is read");
        build_in(self.precision, &mut Repeated(drawn), &self.device, network)
            .expect("every tensor has values")
    }

    fn drawn<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Uniform(0.0, 1.0), &self.device)
    }

    /// Two inputs.
    fn two<const D: usize>(&self, shape: [usize; D]) -> [Tensor<D>; 2] {
        [self.drawn(shape), self.drawn(shape)]
    }

    fn measure<I, const D: usize>(&self, name: &str, inputs: &[I; 2], mut run: impl FnMut(&I) -> Tensor<D>) {
        if !self.wants(name) {
            return;
        }
        let mut seconds = |input| {
            let since = Instant::now();
            let data = black_box(run(input).into_data());
            (since.elapsed().as_secs_f64(), data.convert::<f32>().try_into_vec::<f32>().expect("numbers"))
        };
        let (first, one) = seconds(&inputs[0]);
        // Where kernels are listed with their times, the list of the first run ends here.
        self.device.sync().expect("the device works");
        let given = [one, seconds(&inputs[1]).1];
        // Weights that were not trained leave little of what tells inputs apart.
        let apart = off(&given[0], &given[1]);
        assert!(apart > 0.0, "{name}: two inputs give the same");
        let memory = self.device.memory_pool_usage();
        let since = Instant::now();
        while memory.is_some() && since.elapsed().as_secs_f64() < 0.5 {
            seconds(&inputs[0]);
        }
        let timed = |at: usize| {
            let (took, values) = seconds(&inputs[at % 2]);
            let off = off(&values, &given[at % 2]);
            assert!(off < apart / 10.0, "{name}: run {at} is off by {off} from the first of its input");
            took
        };
        let mut all: Vec<f64> = (0..self.runs).map(timed).collect();
        all.sort_by(f64::total_cmp);
        self.device.sync().expect("the device works");
        print!("{name}: {:.4} s", all[all.len() / 2]);
        if let Some(memory) = self.device.memory_pool_usage() {
            let mib = |bytes: u64| bytes >> 20;
            print!(", first {first:.2} s, {} MiB held", mib(memory.bytes_reserved));
        }
        println!();
    }
}

/// The largest difference over the largest value.
fn off(a: &[f32], b: &[f32]) -> f32 {
    let largest = b.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
    let most = a.iter().zip(b).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
    most / largest
}

/// The tiles of the reference, of which the last is given.
fn in_tiles(network: &KlAutoencoder, x: &Tensor<4>, pad: usize, decodes: bool) -> Tensor<4> {
    let [_, height, width, _] = x.dims();
    let tiles = vae_tiles(height, width, if decodes { 64 } else { 512 }, pad);
    let cut = |tile: &VaeTile| {
        let Window { y0, y1, x0, x1 } = tile.input;
        x.clone().slice_dim(1, y0..y1).slice_dim(2, x0..x1)
    };
    let (inputs, mut last) = (tiles.iter().map(cut).collect(), None);
    let mut done = |_, tile| {
        last = Some(tile);
        ControlFlow::Continue(())
    };
    if decodes {
        network.decode_tiles(Statistics::Pooled, inputs, &mut done);
    } else {
        network.encode_tiles(Statistics::Pooled, inputs, &mut done);
    }
    last.expect("there are tiles")
}

fn main() {
    let asked = Asked::read();
    let (side, cells) = (asked.side_px, asked.side_px / 8);
    if asked.wants("composite") {
        // A residual block and a transformer block as they are at the first level.
        let (config, width) = (UnetConfig::official(), UnetConfig::official().model_channels);
        let block = asked.made(|params| ResBlock::new(params, &config, width, width));
        let transformer = asked.made(|params| Transformer::new(params, &config, width));
        let (inputs, time) = (asked.two([1, cells, cells, width]), asked.drawn([1, 4 * width]));
        let context = asked.drawn([1, 77, config.context_channels]);
        asked.measure("composite", &inputs, |x| {
            transformer.forward(block.forward(x.clone(), &time), &context)
        });
    }
    if asked.wants("swinir") {
        let network = asked.made(|params| SwinIrConfig::official().build(params));
        asked.measure("swinir", &asked.two([1, side, side, 3]), |x| network.forward(x.clone()));
    }
    if ["encode", "decode", "vae-whole", "vae-bands", "vae-tiles"].iter().any(|name| asked.wants(name)) {
        let network = asked.made(|params| KlConfig::official().build(params));
        let pictures = asked.two([1, side, side, 3]);
        let latents = asked.two([1, cells, cells, 4]);
        asked.measure("encode", &pictures, |x| network.encode(x.clone()));
        asked.measure("decode", &latents, |z| network.decode(z.clone()));
        let rows = band_rows(side, 512);
        let mut on = |_, _| ControlFlow::Continue(());
        asked.measure("vae-whole", &pictures, |x| network.decode(network.encode(x.clone())));
        asked.measure("vae-bands", &pictures, |x| {
            let z = network.encode_in_bands(x.clone(), rows, &mut on).expect("it goes on");
            network.decode_in_bands(z, rows, &mut on).expect("it goes on")
        });
        let [one, other] = pictures;
        let [z, z_other] = latents;
        asked.measure("vae-tiles", &[(one, z), (other, z_other)], |(x, z)| {
            in_tiles(&network, x, 32, false);
            in_tiles(&network, z, 11, true)
        });
    }
    if asked.wants("step") {
        // The two evaluations of a guided step, as one batch.
        let config = UnetConfig::official();
        let control = asked.made(|params| ControlNet::new(params, &config));
        let unet = asked.made(|params| config.build(params));
        let shape = [2, cells, cells, 4];
        let (inputs, hint, context) = (asked.two(shape), asked.drawn(shape), asked.drawn([2, 77, 1024]));
        let time = Tensor::<1>::from_floats([499.0, 499.0], &asked.device);
        asked.measure("step", &inputs, |x| {
            let (x, hint, context) = (x.clone(), hint.clone(), context.clone());
            let extra = control.forward(x.clone(), hint, time.clone(), context.clone(), 1.0);
            unet.forward(x, time.clone(), Some(context), Some(extra))
        });
    }
}
