//! The samplers, with their random numbers and tiling, against the reference's own runs
//! (`goldens/make.py`, which names the commit and the network).

use diffbir_diffusion::noise::{CpuNoise, Noise};
use diffbir_diffusion::{
    Condition, Guidance, Latent, Prediction, SampleError, Sampler, Sampling, Schedule, Terminal, tiled,
};
use safetensors::SafeTensors;
use std::convert::Infallible;

/// The network of the goldens.
fn network(x: &Latent, t: f64, condition: Condition, c_img: &Latent) -> Latent {
    let t = t as f32;
    let text = if condition == Condition::Positive { 1.0 } else { -0.5 };
    x.zip(c_img, |x, c| (0.3 + 0.0002 * t) * x + (0.5 - 0.0003 * t) * c + 0.01 * x.tanh() * text)
}

fn latent(shape: &[usize]) -> Latent {
    let count = shape.iter().product();
    let data = (0..count).map(|i: usize| (0.37 * i as f32).sin()).collect();
    Latent { batch: shape[0], channels: shape[1], height: shape[2], width: shape[3], data }
}

fn settings(schedule: &Schedule, prediction: Prediction, steps: usize, scale: f64) -> Sampling<'_> {
    Sampling {
        schedule,
        prediction,
        steps,
        guidance: Guidance { scale, rescale: false },
        has_negative: true,
        eta: 1.0,
        s_noise: 1.0,
    }
}

fn run(sampler: Sampler, settings: &Sampling, shape: &[usize], in_tiles: bool) -> (Latent, usize) {
    let c_img = latent(shape);
    let mut noise = CpuNoise::new(231);
    let x_t = c_img.with(noise.normal(c_img.data.len()));
    let mut calls = 0;
    let mut denoise = |x: &Latent, t: f64, condition| -> Result<Latent, Infallible> {
        calls += 1;
        if in_tiles {
            return tiled::blend(x, 16, 8, |x, window| {
                Ok(network(x, t, condition, &c_img.crop(window.y0, window.x0, 16, 16)))
            });
        }
        Ok(network(x, t, condition, &c_img))
    };
    let latent = settings.run(sampler, x_t, &mut noise, &mut denoise, &mut |_| {}).expect("valid settings");
    (latent, calls)
}

#[test]
fn samplers_end_where_the_references_end() {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/samplers.safetensors"))
        .expect("goldens are in the repository");
    let file = SafeTensors::deserialize(&bytes).expect("a whole file");
    let check = |name: &str, got: Latent| {
        let golden = file.tensor(name).expect("a known name");
        let known: Vec<f32> =
            golden.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        let largest = known.iter().fold(0f32, |m, v| m.max(v.abs()));
        let error = got.data.iter().zip(&known).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest;
        println!("{name}: {error:.2e}");
        assert_eq!(known.len(), got.data.len());
        assert!(error < 1e-5, "{name}: error {error:e} of the largest value");
    };
    let (plain, zero) = (Schedule::new(Terminal::Plain), Schedule::new(Terminal::ZeroSnr));
    let shape = [1, 4, 6, 5];
    for steps in [5, 10, 20] {
        for scale in [1.0, 4.0] {
            let calls = if scale == 1.0 { steps } else { 2 * steps };
            for (name, sampler, schedule, prediction) in [
                ("spaced_eps", Sampler::Spaced, &plain, Prediction::Eps),
                ("spaced_v", Sampler::Spaced, &zero, Prediction::V),
                ("3m", Sampler::Dpmpp3mSde, &zero, Prediction::V),
            ] {
                let (got, made) = run(sampler, &settings(schedule, prediction, steps, scale), &shape, false);
                assert_eq!(made, calls, "evaluations of {name}");
                check(&format!("{name}_{steps}_{scale}"), got);
            }
        }
    }
    let base = settings(&zero, Prediction::V, 10, 4.0);
    let rescaled = Sampling { guidance: Guidance { scale: 4.0, rescale: true }, ..base.clone() };
    check("spaced_v_rescaled", run(Sampler::Spaced, &rescaled, &shape, false).0);
    check("3m_rescaled", run(Sampler::Dpmpp3mSde, &rescaled, &shape, false).0);
    for (name, eta) in [("3m_eta0", 0.0), ("3m_eta05", 0.5)] {
        check(name, run(Sampler::Dpmpp3mSde, &Sampling { eta, ..base.clone() }, &shape, false).0);
    }
    let five = Sampling { steps: 5, ..base };
    check("3m_tiled", run(Sampler::Dpmpp3mSde, &five, &[1, 4, 24, 20], true).0);
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let plain = Schedule::new(Terminal::Plain);
    let refuse = |sampler, settings: &Sampling| {
        let x = latent(&[1, 1, 2, 2]);
        let mut noise = CpuNoise::new(0);
        let mut denoise = |x: &Latent, _, _| -> Result<Latent, Infallible> { Ok(x.clone()) };
        let result = settings.run(sampler, x, &mut noise, &mut denoise, &mut |_| {});
        assert!(matches!(result, Err(SampleError::Setting(_))));
    };
    refuse(Sampler::Spaced, &settings(&plain, Prediction::Eps, 1, 1.0));
    refuse(Sampler::Dpmpp3mSde, &settings(&plain, Prediction::Eps, 10, 1.0));
}
