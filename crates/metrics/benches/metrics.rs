//! Milliseconds of each metric for one pair of pictures, on weights drawn at random.
//!
//! `cargo bench --workspace --bench metrics -- RESTORED TRUTH NIQE_NPZ [--only NAME] [--runs 5] [--threads 2]`
//!
//! One line a metric: the median of the clock and of the processor's time, after a run that does not count (on
//! Linux; elsewhere the clock twice). Reading the pictures is not counted. `bench/metrics.py` runs this and pyiqa
//! in turns.

use burn::tensor::Device;
use diffbir_metrics::{Backbone, Channels, Lpips, Luma, MetricError, Niqe, Picture, ms_ssim, psnr, ssim};
use diffbir_nn::Params;
use diffbir_nn::params::{Precision, RandomInit, build_in};
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

/// A metric of the pair.
type Named<'a> = (&'static str, &'a dyn Fn() -> Result<f64, MetricError>);

fn main() {
    let (mut files, mut only, mut runs, mut threads) = (Vec::new(), None, 5, 2);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} wants a value"));
        match argument.as_str() {
            "--bench" => {}
            "--only" => only = Some(value()),
            "--runs" => runs = value().parse().expect("a number"),
            "--threads" => threads = value().parse().expect("a number"),
            _ => files.push(argument),
        }
    }
    rayon::ThreadPoolBuilder::new().num_threads(threads).build_global().expect("there is no pool before");
    let [restored, truth, niqe] = &files[..] else { panic!("RESTORED TRUTH NIQE_NPZ are needed") };
    let open = |path: &String| Picture::open(Path::new(path)).unwrap_or_else(|error| panic!("{error}"));
    let (a, b) = (open(restored), open(truth));
    let niqe = Niqe::open(Path::new(niqe)).unwrap_or_else(|error| panic!("{error}"));
    let drawn = |backbone| {
        let network = |params: &Params| Lpips::new(params, backbone);
        build_in(Precision::F32, &mut RandomInit { seed: 0 }, &Device::flex(), network)
            .expect("every tensor is drawn")
    };
    let (alex, vgg) = (drawn(Backbone::AlexNet), drawn(Backbone::Vgg16));
    let metrics: [Named; 9] = [
        ("psnr", &|| psnr(&a, &b, Channels::Rgb)),
        ("psnr-y", &|| psnr(&a, &b, Channels::Luma)),
        ("ssim", &|| ssim(&a, &b, Channels::Rgb)),
        ("ssim-y", &|| ssim(&a, &b, Channels::Luma)),
        ("ms-ssim", &|| ms_ssim(&a, &b, Channels::Rgb)),
        ("ms-ssim-y", &|| ms_ssim(&a, &b, Channels::Luma)),
        ("lpips", &|| alex.distance(&a, &b)),
        ("lpips-vgg", &|| vgg.distance(&a, &b)),
        ("niqe", &|| niqe.score(&a, Luma::Full)),
    ];
    for (name, metric) in metrics {
        if only.as_ref().is_some_and(|only| only != name) {
            continue;
        }
        let mut times = Vec::new();
        for _ in 0..=runs {
            let (since, before) = (Instant::now(), processor_s());
            let value = black_box(metric().unwrap_or_else(|error| panic!("{name}: {error}")));
            let wall = since.elapsed().as_secs_f64();
            times.push([wall, processor_s().map_or(wall, |after| after - before.unwrap_or(0.0)), value]);
        }
        let median = |which: usize| {
            let mut counted: Vec<f64> = times[1..].iter().map(|time| time[which]).collect();
            counted.sort_by(f64::total_cmp);
            1e3 * counted[counted.len() / 2]
        };
        println!("{name} {:.3} {:.3} {}", median(0), median(1), times[0][2]);
    }
}

/// Seconds that all threads have computed.
#[cfg(target_os = "linux")]
#[allow(unsafe_code, reason = "calls the C library")]
fn processor_s() -> Option<f64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes `time` and nothing else.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    Some(time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9)
}

#[cfg(not(target_os = "linux"))]
fn processor_s() -> Option<f64> {
    None
}
