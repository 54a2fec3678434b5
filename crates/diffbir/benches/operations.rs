//! Milliseconds of single operations at the sizes that Stable Diffusion 2.1 has for 512 x 512 under guidance.
//!
//! `cargo bench --workspace --features gpu --bench operations -- [part of a name] [--device vulkan] [--precision f16]`
//!
//! One line an operation: how long one of many takes that follow each other without waiting, and how much arithmetic
//! that is where it is a matter of products.

use burn::tensor::{DType, Device, Distribution, Tensor};
use diffbir::device::DeviceChoice;
use diffbir_nn::{Products, ops};
use std::time::Instant;

struct Bench {
    name: String,
    device: Device,
    dtype: DType,
}

impl Bench {
    fn drawn<const D: usize>(&self, shape: [usize; D]) -> Tensor<D> {
        let tensor = Tensor::<D>::random(shape, Distribution::Uniform(-1.0, 1.0), &self.device);
        tensor.cast(self.dtype)
    }

    fn measure<const D: usize>(&self, name: &str, products: usize, run: impl Fn() -> Tensor<D>) {
        const AT_ONCE: usize = 20;
        if !name.contains(&self.name) {
            return;
        }
        let seconds = || {
            let since = Instant::now();
            let results: Vec<_> = (0..AT_ONCE).map(|_| run()).collect();
            self.device.sync().expect("the device works");
            drop(results);
            since.elapsed().as_secs_f64() / AT_ONCE as f64
        };
        seconds();
        let mut all: Vec<f64> = (0..5).map(|_| seconds()).collect();
        all.sort_by(f64::total_cmp);
        let rate = if products > 0 {
            format!(", {:.1} TFLOP/s", 2e-12 * products as f64 / all[2])
        } else {
            String::new()
        };
        println!("{name}: {:.3} ms{rate}", all[2] * 1e3);
    }

    fn convolution(&self, side: usize, input: usize, output: usize, kernel: usize) {
        let (x, weight) = (self.drawn([2, side, side, input]), self.drawn([output, kernel, kernel, input]));
        let bias = self.drawn([output]);
        let name = format!("conv {kernel}x{kernel} {input} to {output} at {side}");
        let products = 2 * side * side * input * output * kernel * kernel;
        self.measure(&name, products, || {
            ops::conv2d(
                x.clone(),
                weight.clone(),
                Some(bias.clone()),
                1,
                (kernel / 2, kernel / 2),
                Products::F32,
            )
        });
    }

    fn linear(&self, rows: usize, input: usize, output: usize) {
        let (x, weight, bias) =
            (self.drawn([2, rows, input]), self.drawn([output, input]), self.drawn([output]));
        self.measure(&format!("linear {input} to {output} of {rows}"), 2 * rows * input * output, || {
            ops::linear(x.clone(), weight.clone(), Some(bias.clone()), Products::F32)
        });
    }

    fn attention(&self, heads: usize, queries: usize, keys: usize, width: usize) {
        // As in the network: heads are views of channels.
        let part = |tokens: usize| self.drawn([2, tokens, heads, width]).swap_dims(1, 2);
        let (q, k, v) = (part(queries), part(keys), part(keys));
        let name = format!("attention {heads} x {width}, {queries} to {keys}");
        self.measure(&name, 4 * heads * queries * keys * width, || {
            ops::attention(q.clone(), k.clone(), v.clone(), Products::F32)
        });
    }

    fn group_norm(&self, side: usize, channels: usize) {
        let x = self.drawn([2, side, side, channels]);
        let weight = self.drawn([channels]).cast(DType::F32);
        self.measure(&format!("group norm of {channels} at {side}"), 0, || {
            ops::group_norm(x.clone(), weight.clone(), weight.clone(), 32, 1e-5, true)
        });
    }
}

fn main() {
    let mut bench = Bench { name: String::new(), device: Device::flex(), dtype: DType::F32 };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} wants a value"));
        match argument.as_str() {
            "--bench" => {}
            "--device" => {
                let choice: DeviceChoice = value().parse().expect("a device");
                bench.device = choice.open().expect("the device starts").device;
            }
            "--precision" => {
                bench.dtype = match value().as_str() {
                    "f32" => DType::F32,
                    "f16" => DType::F16,
                    _ => panic!("--precision wants f32 or f16"),
                }
            }
            _ => bench.name = argument,
        }
    }
    for (side, channels) in [(64, 320), (32, 640), (16, 1280)] {
        bench.convolution(side, channels, channels, 3);
        bench.group_norm(side, channels);
        bench.linear(side * side, channels, channels);
        bench.linear(side * side, channels, 8 * channels);
        bench.linear(side * side, 4 * channels, channels);
        bench.attention(channels / 64, side * side, side * side, 64);
        bench.attention(channels / 64, side * side, 77, 64);
        let (x, y) = (bench.drawn([2, side, side, channels]), bench.drawn([2, side, side, channels]));
        let weight = bench.drawn([channels]).cast(DType::F32);
        bench.measure(&format!("layer norm of {channels} at {side}"), 0, || {
            ops::layer_norm(x.clone(), weight.clone(), weight.clone(), 1e-5)
        });
        bench.measure(&format!("sum of {channels} at {side}"), 0, || x.clone() + y.clone());
        bench.measure(&format!("join of {channels} at {side}"), 0, || {
            Tensor::cat(vec![x.clone(), y.clone()], 3)
        });
        let wide = bench.drawn([2, side, side, 4 * channels]);
        bench.measure(&format!("gelu of {} at {side}", 4 * channels), 0, || ops::gelu(wide.clone()));
    }
    bench.convolution(64, 320, 320, 1);
    bench.convolution(64, 640, 320, 3);
    bench.convolution(256, 256, 256, 3);
    bench.convolution(512, 128, 128, 3);
    bench.group_norm(512, 128);
    bench.attention(1, 4096, 4096, 512);
}
