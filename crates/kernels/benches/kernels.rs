//! GFLOP/s of the kernels over the shapes that the networks spend their time in.
//!
//! `cargo bench -p diffbir-kernels -- [part of a name] [--threads 1,2] [--seconds 0.3] [--cpu]`
//!
//! One line a shape and thread count: the median of as many calls as fit into the time, at least five.
//! `--cpu` counts the processor time of a single thread instead of the clock's, for a machine that is not
//! quiet (Linux). To compare two states of the code, build both and run them in turns.

use diffbir_kernels::activation::{geglu, gelu, gelu_backward, prelu, prelu_backward};
use diffbir_kernels::adamw::{AdamW, Moments, sum_of_squares};
use diffbir_kernels::attention::{Attention, Heads, WindowAttention};
use diffbir_kernels::conv::{After, Conv2d, PackedWeight, gated_linear};
use diffbir_kernels::norm::GroupNorm;
use diffbir_kernels::{Products, layer_norm, layer_norm_backward};
use std::hint::black_box;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

struct Options {
    filter: String,
    threads: Vec<usize>,
    budget: Duration,
    cpu: bool,
}

fn options() -> Options {
    let mut options = Options {
        filter: String::new(),
        threads: vec![1, 2],
        budget: Duration::from_millis(300),
        cpu: false,
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} wants a value"));
        match argument.as_str() {
            "--bench" => {}
            "--threads" => {
                options.threads = value().split(',').map(|n| n.parse().expect("a number")).collect();
            }
            "--seconds" => options.budget = Duration::from_secs_f64(value().parse().expect("seconds")),
            "--cpu" => (options.cpu, options.threads) = (true, vec![1]),
            _ => options.filter = argument,
        }
    }
    options
}

impl Options {
    /// Seconds, of the clock or of this thread.
    #[allow(unsafe_code, reason = "calls the C library")]
    fn now(&self) -> f64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        if !self.cpu {
            return START.elapsed().as_secs_f64();
        }
        #[cfg(target_os = "linux")]
        {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: the call writes `time` and nothing else.
            unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
            time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
        }
        #[cfg(not(target_os = "linux"))]
        panic!("--cpu is for Linux")
    }

    /// Times `work`, worth `flop` floating point operations, and prints a line for each thread count.
    fn time(&self, name: &str, flop: f64, work: impl Fn() + Sync) {
        if !name.contains(&self.filter) {
            return;
        }
        print!("{name:<44}");
        for &threads in &self.threads {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a thread pool");
            let mut times = Vec::new();
            pool.install(|| {
                work();
                let start = Instant::now();
                while times.len() < 5 || start.elapsed() < self.budget {
                    let call = self.now();
                    work();
                    times.push(self.now() - call);
                }
            });
            times.sort_by(f64::total_cmp);
            let median = times[times.len() / 2];
            print!("  {threads}t {:8.3} ms {:7.1} GFLOP/s", median * 1e3, flop / median * 1e-9);
        }
        println!();
    }
}

fn noise(count: usize) -> Vec<f32> {
    (0..count).map(|i| (i * 7919 % 1013) as f32 / 506.5 - 1.0).collect()
}

/// (channels in, channels out, side of the picture, kernel, stride, images).
const CONVOLUTIONS: [(usize, usize, usize, usize, usize, usize); 22] = [
    (64, 64, 512, 3, 1, 1),
    (128, 128, 512, 3, 1, 1),
    (512, 512, 64, 3, 1, 1),
    (320, 320, 64, 3, 1, 1),
    (640, 640, 32, 3, 1, 1),
    (1280, 1280, 16, 3, 1, 1),
    (1280, 1280, 8, 3, 1, 1),
    (16, 16, 64, 3, 1, 8),
    (48, 48, 64, 3, 1, 8),
    (96, 96, 64, 3, 1, 8),
    (64, 32, 128, 3, 1, 1),
    (192, 32, 128, 3, 1, 1),
    (3, 64, 512, 3, 1, 1),
    (64, 48, 512, 3, 1, 1),
    (64, 3, 512, 3, 1, 1),
    (320, 320, 64, 1, 1, 1),
    (320, 320, 64, 3, 2, 1),
    (128, 128, 512, 3, 2, 1),
    (4, 320, 64, 3, 1, 1),
    (64, 64, 32, 3, 1, 4),
    (64, 64, 16, 3, 1, 16),
    (128, 128, 4, 3, 1, 16),
];

fn convolutions(options: &Options) {
    for (inputs, outputs, side, kernel, stride, batch) in CONVOLUTIONS {
        let pad = kernel / 2;
        let c = Conv2d {
            batch,
            height: side,
            width: side,
            in_channels: inputs,
            out_channels: outputs,
            kernel,
            stride,
            pad_before: pad,
            pad_after: pad,
            doubled: false,
            products: Products::F32,
        };
        let name = |what: &str| {
            format!("conv {what} {kernel}x{kernel}/{stride} {inputs}->{outputs} {side} b{batch}")
        };
        if !WAYS.iter().any(|what| name(what).contains(&options.filter)) {
            continue;
        }
        let (height, width) = c.out_size();
        let pixels = batch * height * width;
        let flop = 2.0 * (pixels * outputs * inputs * kernel * kernel) as f64;
        let x = noise(batch * side * side * inputs);
        let weight = noise(outputs * inputs * kernel * kernel);
        let bias = noise(outputs);
        let dy = noise(pixels * outputs);
        products(options, &c, name, flop, [&x, &weight, &bias, &dy]);
    }
}

/// Ways to use a weight: forward with the plain one, with the packed one in f32 and in bf16, the gradients in both, and
/// forward where it is trained.
const WAYS: [&str; 8] =
    ["forward", "packed", "bf16", "input", "weight", "input in bf16", "weight in bf16", "trained forward"];

/// Times all ways, with input, weight, bias and a gradient of the output.
fn products(
    options: &Options,
    c: &Conv2d,
    name: impl Fn(&str) -> String,
    flop: f64,
    [x, weight, bias, dy]: [&[f32]; 4],
) {
    let shape = [c.out_channels, c.kernel, c.kernel, c.in_channels];
    let packed = PackedWeight::new(weight, shape, Products::F32);
    let bf16 = PackedWeight::new(weight, shape, Products::Bf16);
    let double = Conv2d { doubled: true, ..*c };
    let rounding = Conv2d { products: Products::Bf16, ..*c };
    if [c.kernel, c.stride, c.pad_before] == [3, 1, 1] {
        // As many operations as the large picture would take.
        let packed = PackedWeight::doubled(weight, shape, Products::F32);
        let bf16 = PackedWeight::doubled(weight, shape, Products::Bf16);
        let dy: Vec<f32> = dy.repeat(4);
        let name = |way: usize| format!("doubled {}", name(WAYS[way]));
        let time = |way: usize, work: &(dyn Fn() -> Vec<f32> + Sync)| {
            options.time(&name(way), 4.0 * flop, || drop(black_box(work())));
        };
        time(0, &|| double.forward(x, weight, bias));
        time(1, &|| double.forward_packed(x, &packed, bias, After::default()));
        time(2, &|| double.forward_packed(x, &bf16, bias, After::default()));
        time(3, &|| double.backward_input(&dy, weight));
        time(4, &|| double.backward_weight(x, &dy));
    }
    options.time(&name(WAYS[0]), flop, || drop(black_box(c.forward(x, weight, bias))));
    options
        .time(&name(WAYS[1]), flop, || drop(black_box(c.forward_packed(x, &packed, bias, After::default()))));
    options
        .time(&name(WAYS[2]), flop, || drop(black_box(c.forward_packed(x, &bf16, bias, After::default()))));
    options.time(&name(WAYS[3]), flop, || drop(black_box(c.backward_input(dy, weight))));
    options.time(&name(WAYS[4]), flop, || drop(black_box(c.backward_weight(x, dy))));
    options.time(&name(WAYS[5]), flop, || drop(black_box(rounding.backward_input(dy, weight))));
    options.time(&name(WAYS[6]), flop, || drop(black_box(rounding.backward_weight(x, dy))));
    options.time(&name(WAYS[7]), flop, || drop(black_box(c.forward_to_train(x, weight, bias))));
}

/// (rows, features in, features out).
const LINEAR_MAPS: [(usize, usize, usize); 9] = [
    (4096, 320, 1280),
    (4096, 320, 2560),
    (1024, 640, 2560),
    (1024, 640, 5120),
    (1024, 1024, 1024),
    (77, 1024, 320),
    (77, 1024, 4096),
    (1, 1280, 1280),
    (4096, 180, 540),
];

fn linear_maps(options: &Options) {
    for (rows, inputs, outputs) in LINEAR_MAPS {
        let c = Conv2d {
            batch: 1,
            height: 1,
            width: rows,
            in_channels: inputs,
            out_channels: outputs,
            kernel: 1,
            stride: 1,
            pad_before: 0,
            pad_after: 0,
            doubled: false,
            products: Products::F32,
        };
        let flop = 2.0 * (rows * inputs * outputs) as f64;
        let [x, weight, bias, dy] = [rows * inputs, inputs * outputs, outputs, rows * outputs].map(noise);
        let name = |what: &str| format!("linear {what} {rows}x{inputs}->{outputs}");
        products(options, &c, name, flop, [&x, &weight, &bias, &dy]);
        for (what, products) in [("gated packed", Products::F32), ("gated bf16", Products::Bf16)] {
            let weight = PackedWeight::new(&weight, [outputs, 1, 1, inputs], products);
            options.time(&name(what), flop, || drop(black_box(gated_linear(&x, &weight, &bias))));
        }
    }
}

/// (sequences, heads, queries, keys, width, whether with bias).
const ATTENTIONS: [(usize, usize, usize, usize, usize, bool); 7] = [
    (1, 5, 4096, 4096, 64, false),
    (1, 10, 1024, 1024, 64, false),
    (1, 5, 4096, 77, 64, false),
    (1, 8, 4096, 4096, 40, false),
    (1, 1, 4096, 4096, 512, false),
    (64, 6, 64, 64, 30, true),
    (64, 2, 64, 64, 32, true),
];

fn attentions(options: &Options) {
    for (batch, heads, queries, keys, width, biased) in ATTENTIONS {
        let name = |what: &str| format!("attention {what} {batch}x{heads} {queries}x{keys} of {width}");
        if !["forward", "bf16", "backward"].iter().any(|what| name(what).contains(&options.filter)) {
            continue;
        }
        let a = Attention {
            batch,
            heads,
            queries,
            keys,
            width,
            bias: biased.then_some([1, heads]),
            products: Products::F32,
        };
        let in_bf16 = Attention { products: Products::Bf16, ..a };
        let size = batch * heads * width;
        let [q, k, v, dy] = [queries, keys, keys, queries].map(|rows| noise(size * rows));
        let bias = biased.then(|| noise(heads * queries * keys));
        let view = |data, rows| Heads::interleaved(data, rows, heads, width);
        let (q, k, v, dy) = (view(&q, queries), view(&k, keys), view(&v, keys), view(&dy, queries));
        let bias = bias.as_deref();
        let (y, logarithms) = a.forward(q, k, v, bias);
        let flop = 4.0 * (size * queries * keys) as f64;
        options.time(&name("forward"), flop, || drop(black_box(a.forward(q, k, v, bias))));
        options.time(&name("bf16"), flop, || drop(black_box(in_bf16.forward(q, k, v, bias))));
        options.time(&name("backward"), 2.5 * flop, || {
            drop(black_box(a.backward(q, k, v, bias, &y, &logarithms, dy)));
        });
    }
}

/// (side of the picture in windows of 8, heads, width).
const WINDOWS: [(usize, usize, usize); 2] = [(8, 6, 30), (16, 6, 16)];

fn windows(options: &Options) {
    for (across, heads, width) in WINDOWS {
        let side = 8 * across;
        let parts = noise(side * side * 3 * heads * width);
        let bias = noise(heads * 64 * 64);
        for (what, products) in [("f32", Products::F32), ("bf16", Products::Bf16)] {
            let sizes = WindowAttention {
                batch: 1,
                rows: side,
                columns: side,
                heads,
                width,
                window: 8,
                shift: 4,
                products,
            };
            let name = format!("windows {what} {side}x{side} {heads} heads of {width}");
            let flop = 4.0 * (side * side * 64 * heads * width) as f64;
            options.time(&name, flop, || drop(black_box(sizes.forward(&parts, &bias, None))));
        }
    }
}

/// (pixels, channels).
const NORMS: [(usize, usize); 2] = [(64 * 64, 320), (512 * 512, 128)];

fn norms(options: &Options) {
    for (pixels, channels) in NORMS {
        let n = GroupNorm { batch: 1, pixels, channels, groups: 32, epsilon: 1e-5, silu: true };
        let [x, dy] = [noise(pixels * channels), noise(pixels * channels)];
        let [weight, bias] = [noise(channels), noise(channels)];
        // Operations are counted as one an element: the column says billions of elements a second.
        let name = |what: &str| format!("group norm + silu {what} {pixels}x{channels}");
        let count = (pixels * channels) as f64;
        options.time(&name("forward"), count, || drop(black_box(n.forward(&x, &weight, &bias))));
        options.time(&name("backward"), count, || drop(black_box(n.backward(&x, &weight, &bias, &dy))));
    }
    for (rows, features) in [(4096, 320), (4096, 180)] {
        let [x, dy] = [noise(rows * features), noise(rows * features)];
        let [weight, bias] = [noise(features), noise(features)];
        let name = |what: &str| format!("layer norm {what} {rows}x{features}");
        let count = x.len() as f64;
        options.time(&name("forward"), count, || drop(black_box(layer_norm(&x, &weight, &bias, 1e-5))));
        options
            .time(&name("backward"), count, || drop(black_box(layer_norm_backward(&x, &weight, 1e-5, &dy))));
    }
}

fn activations(options: &Options) {
    let [x, dy] = [noise(4096 * 1280), noise(4096 * 1280)];
    // Elements, as with the norms.
    let count = x.len() as f64;
    options.time("gelu forward 4096x1280", count, || drop(black_box(gelu(&x))));
    options.time("gelu backward 4096x1280", count, || drop(black_box(gelu_backward(&x, &dy))));
    options.time("geglu 4096x1280 to half", count / 2.0, || drop(black_box(geglu(&x, 640))));
    let [x, dy, slopes] = [noise(4096 * 64), noise(4096 * 64), noise(64)];
    let count = x.len() as f64;
    options.time("prelu forward 4096x64", count, || drop(black_box(prelu(&x, &slopes))));
    options.time("prelu backward 4096x64", count, || drop(black_box(prelu_backward(&x, &slopes, &dy))));
}

/// A step of AdamW for a million weights, and the norm by which gradients are clipped.
fn optimizer(options: &Options) {
    let [value, mean, square, average, gradient] = [1.0, 0.1, 2.0, 1.0, 0.5].map(|scale: f32| {
        noise(1 << 20).into_iter().map(|value| (scale * value).abs()).collect::<Vec<f32>>()
    });
    let step = AdamW {
        beta1: 0.9,
        beta2: 0.999,
        corrections: [0.1, 0.001],
        epsilon: 1e-8,
        rate: 1e-4,
        weight_decay: 0.01,
        scale: 1.0,
        average_decay: Some(0.999),
    };
    let before = Moments { value: &value, mean: &mean, square: &square, average: &average };
    let count = value.len() as f64;
    options.time("adamw 1048576", count, || drop(black_box(step.step(before, &gradient))));
    options.time("sum of squares 1048576", count, || {
        black_box(sum_of_squares(&gradient));
    });
}

fn main() {
    let options = options();
    convolutions(&options);
    linear_maps(&options);
    attentions(&options);
    windows(&options);
    norms(&options);
    activations(&options);
    optimizer(&options);
}
