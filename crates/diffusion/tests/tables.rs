//! Schedules and random numbers against the reference, torch and torchsde (`goldens/make_tables.py`, which names
//! the commit and versions).

use diffbir_diffusion::edm::Sigmas;
use diffbir_diffusion::noise::{Noise, Source, TorchNoise};
use diffbir_diffusion::restoration::{Loss, Space};
use diffbir_diffusion::schedule::{LAST_T, TIMESTEPS};
use diffbir_diffusion::{Guidance, Latent, Prediction, Restoration, Schedule, Terminal, ddim, spaced};
use safetensors::SafeTensors;
use std::sync::LazyLock;

static GOLDENS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/tables.safetensors");
    std::fs::read(path).expect("goldens are in the repository")
});

fn golden<T, const N: usize>(name: &str, of_bytes: impl Fn([u8; N]) -> T) -> Vec<T> {
    let file = SafeTensors::deserialize(&GOLDENS).expect("a whole file");
    let golden = file.tensor(name).unwrap_or_else(|_| panic!("no golden {name}"));
    golden.data().as_chunks::<N>().0.iter().map(|&bytes| of_bytes(bytes)).collect()
}

fn floats(name: &str) -> Vec<f32> {
    golden(name, f32::from_le_bytes)
}

fn doubles(name: &str) -> Vec<f64> {
    golden(name, f64::from_le_bytes)
}

fn integers(name: &str) -> Vec<usize> {
    golden(name, i64::from_le_bytes).into_iter().map(|value| value as usize).collect()
}

fn close(name: &str, got: &[f32], known: &[f32], tolerance: f32) {
    assert_eq!(got.len(), known.len(), "{name}");
    for (index, (got, known)) in got.iter().zip(known).enumerate() {
        assert!((got - known).abs() <= tolerance, "{name}: {got} is not {known} at {index}");
    }
}

#[test]
fn schedules_are_the_references() {
    // The zero-SNR betas are ratios, which leave their rounding near the end.
    for (name, terminal, tolerance) in
        [("plain", Terminal::Plain, 1e-12), ("zero-snr", Terminal::ZeroSnr, 1e-8)]
    {
        let got = Schedule::new(terminal).alpha_bar;
        for (t, known) in doubles(&format!("alpha_bar {name}")).into_iter().enumerate() {
            let tolerance = if t < 990 { 1e-12 } else { tolerance };
            assert!((got[t] - known).abs() <= tolerance * known, "{name} {t}: {} is not {known}", got[t]);
        }
    }
}

#[test]
fn shares_of_picture_and_noise_are_the_references() {
    let x: Vec<f32> = (0..20).map(|i| (0.37 * i as f32).sin()).collect();
    let noise: Vec<f32> = (0..20).map(|i| (0.53 * i as f32).cos()).collect();
    for (model, terminal) in [("eps", Terminal::Plain), ("v", Terminal::ZeroSnr)] {
        let schedule = Schedule::new(terminal);
        let times = [0, 1, 150, 499, 998, 999];
        let noisy: Vec<f32> = times.iter().flat_map(|&t| schedule.q_sample(&x, &noise, t)).collect();
        close("q_sample", &noisy, &floats(&format!("q_sample {model}")), 1e-6);
        let velocity: Vec<f32> = times.iter().flat_map(|&t| schedule.velocity(&x, &noise, t)).collect();
        close("get_v", &velocity, &floats(&format!("get_v {model}")), 1e-6);
    }
}

#[test]
fn timesteps_are_the_references() {
    for steps in [2, 5, 10, 20, 50, 100, 1000] {
        assert_eq!(spaced::timesteps(LAST_T, steps), integers(&format!("spaced {steps}")), "spaced {steps}");
    }
    for steps in [1, 2, 4, 5, 7, 8, 10, 13, 20, 30, 50, 100, 250, 500] {
        assert_eq!(ddim::timesteps(steps), Some(integers(&format!("ddim {steps}"))), "ddim {steps}");
    }
    let works = golden("ddim works", |[byte]: [u8; 1]| byte == 1);
    for (index, works) in works.into_iter().enumerate() {
        assert_eq!(ddim::timesteps(index + 1).is_some(), works, "ddim {}", index + 1);
    }
    let schedule = Schedule::new(Terminal::ZeroSnr);
    for steps in [1, 2, 3, 5, 7, 10, 13, 20, 50, 100, 999] {
        let got = Sigmas::new(&schedule, Prediction::V, LAST_T, steps);
        assert_eq!(got.timesteps, integers(&format!("edm times {steps}")), "edm {steps}");
        for (got, known) in got.sigmas.iter().zip(floats(&format!("edm sigmas {steps}"))) {
            assert!((got - known).abs() <= 2e-7 * known, "edm {steps}: {got} is not {known}");
        }
    }
}

#[test]
fn rescaled_guidance_is_the_references() {
    let times = || (0..TIMESTEPS).step_by(37);
    let known = doubles("cfg");
    for (scale, known) in [0.5, 1.0, 1.5, 4.0, 6.0, 8.0].into_iter().zip(known.chunks(times().count())) {
        let guidance = Guidance { scale, rescale: true };
        for (t, known) in times().zip(known) {
            let got = guidance.at(t as f64);
            assert!((got - known).abs() < 1e-12, "{scale} at {t}: {got} is not {known}");
        }
    }
}

#[test]
fn restoration_guidance_is_the_references() {
    let latent = |value: &dyn Fn(usize) -> f32| Latent {
        batch: 2,
        channels: 3,
        height: 6,
        width: 8,
        data: (0..288).map(value).collect(),
    };
    let target = latent(&|i| 0.02 * (0.37 * i as f32).sin() + if i % 8 > 3 { 1.0 } else { 0.0 });
    let estimate = latent(&|i| 0.3 * (0.53 * i as f32).cos());
    let pull = |loss| {
        let how = Restoration { loss, space: Space::Rgb, scale: 0.5, start: 1001, stop: -1, repeat: 1 };
        how.pull(&estimate, &target).data
    };
    let plain = pull(Loss::Mse);
    close("mse", &plain, &floats("restoration mse"), 5e-5);
    close("w_mse", &pull(Loss::WeightedMse), &floats("restoration w_mse"), 5e-5);
    // One for each pixel, whatever the channel.
    let weights = floats("restoration weights");
    assert!(weights.iter().any(|&w| w > 0.9) && weights.iter().any(|&w| w < 1e-3), "{weights:?}");
    for (index, pull) in pull(Loss::WeightedMse).into_iter().enumerate() {
        let weight = weights[index / 144 * 48 + index % 48];
        assert!((pull - weight * plain[index]).abs() < 5e-5, "{index}: {pull} of {}", plain[index]);
    }
}

#[test]
fn random_numbers_are_torchs() {
    for seed in [0, 231, (1 << 32) + 5] {
        // Below 16 values one by one in pairs, of which one may wait for the next draw; from 16 in blocks.
        let mut noise = TorchNoise::new(Source::TorchCpu, seed);
        let got: Vec<f32> = (1..=40).flat_map(|count| noise.normal(count)).collect();
        close("normal", &got, &floats(&format!("normal {seed}")), 1e-6);
    }
}

#[test]
fn brownian_motion_is_torchsdes() {
    let sigmas = Sigmas::new(&Schedule::new(Terminal::ZeroSnr), Prediction::V, LAST_T, 10).sigmas;
    // The first integer of seed 231 is the entropy.
    let mut noise = TorchNoise::new(Source::TorchCpu, 231);
    noise.start_interval(120, sigmas[9], sigmas[0]);
    let got: Vec<f32> = (0..9).flat_map(|index| noise.interval(sigmas[index], sigmas[index + 1])).collect();
    // A field is a sum of thirty or so draws.
    close("brownian", &got, &floats("brownian"), 2e-5);
}
