//! The samplers, with their random numbers and tiling, against the reference's own runs
//! (`goldens/make.py`, which names the commit and the network).

use diffbir_diffusion::noise::{Noise, Source, TorchNoise};
use diffbir_diffusion::schedule::LAST_T;
use diffbir_diffusion::{
    Condition, Guidance, Latent, Parameter, Parameters, Prediction, SampleError, Sampler, Sampling, Schedule,
    StartPoint, Terminal, start, tiled,
};
use diffbir_imaging::tiles::gaussian_weights;
use safetensors::SafeTensors;
use std::convert::Infallible;
use std::sync::LazyLock;

/// The network of the goldens.
fn network(x: &Latent, t: f64, condition: Condition, c_img: &Latent) -> Latent {
    let t = t as f32;
    let text = if condition == Condition::Positive { 1.0 } else { -0.5 };
    x.zip(c_img, |x, c| (0.3 + 0.0002 * t) * x + (0.5 - 0.0003 * t) * c + 0.01 * x.tanh() * text)
}

const SHAPE: [usize; 4] = [1, 4, 6, 5];

fn c_img(shape: [usize; 4]) -> Latent {
    let data = (0..shape.iter().product()).map(|i: usize| (0.37 * i as f32).sin()).collect();
    Latent { batch: shape[0], channels: shape[1], height: shape[2], width: shape[3], data }
}

static SCHEDULES: LazyLock<[Schedule; 2]> =
    LazyLock::new(|| [Schedule::new(Terminal::Plain), Schedule::new(Terminal::ZeroSnr)]);

/// The goldens' usual settings: 10 steps, scale 4, the schedule that goes with the prediction.
fn settings(prediction: Prediction) -> Sampling<'static> {
    Sampling {
        schedule: &SCHEDULES[usize::from(prediction == Prediction::V)],
        prediction,
        first_t: LAST_T,
        steps: 10,
        guidance: Guidance { scale: 4.0, rescale: false },
        has_negative: true,
        parameters: Parameters::default(),
    }
}

/// What the network was asked.
#[derive(Default)]
struct Trace {
    inputs: Vec<f32>,
    times: Vec<f32>,
    conditions: Vec<Condition>,
}

/// The reference's `x_T` of a name, after drawing the same: PyTorch's logarithm and sine differ in the last
/// bit, which a step from sigma 10000 down to 18 would magnify.
fn known_start(name: &str, c_img: &Latent, noise: &mut TorchNoise) -> Latent {
    let known = golden(name);
    assert!(error(&noise.normal(c_img.data.len()), &known) < 1e-6);
    c_img.with(known)
}

fn run(sampler: Sampler, settings: &Sampling) -> (Latent, Trace) {
    let mut noise = TorchNoise::new(Source::TorchCpu, 231);
    let c_img = c_img(SHAPE);
    let x_t = known_start("x_T", &c_img, &mut noise);
    sample(sampler, settings, x_t, &c_img, &mut noise)
}

fn sample(
    sampler: Sampler,
    settings: &Sampling,
    x_t: Latent,
    c_img: &Latent,
    noise: &mut TorchNoise,
) -> (Latent, Trace) {
    let mut trace = Trace::default();
    let mut denoise = |x: &Latent, t: f64, conditions: &[Condition]| -> Result<_, Infallible> {
        trace.inputs.extend(&x.data);
        trace.times.push(t as f32);
        trace.conditions.extend(conditions);
        Ok(conditions.iter().map(|&condition| network(x, t, condition, c_img)).collect())
    };
    let mut steps = 0;
    let mut on_step = |step: diffbir_diffusion::Step| {
        steps += 1;
        assert_eq!(step.done, steps);
    };
    let latent = settings.run(sampler, x_t, noise, &mut denoise, &mut on_step).expect("valid settings");
    (latent, trace)
}

static GOLDENS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/samplers.safetensors");
    std::fs::read(path).expect("goldens are in the repository")
});

fn golden(name: &str) -> Vec<f32> {
    let file = SafeTensors::deserialize(&GOLDENS).expect("a whole file");
    let golden = file.tensor(name).unwrap_or_else(|_| panic!("no golden {name}"));
    golden.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
}

/// The largest error as a share of the largest value.
fn error(got: &[f32], known: &[f32]) -> f32 {
    assert_eq!(known.len(), got.len());
    let largest = known.iter().fold(0f32, |m, v| m.max(v.abs()));
    got.iter().zip(known).fold(0f32, |m, (a, b)| m.max((a - b).abs())) / largest
}

fn check(name: &str, got: &Latent) {
    let error = error(&got.data, &golden(name));
    println!("{error:.1e} {name}");
    assert!(error < 1e-5, "{name}: error {error:e} of the largest value");
}

const MODELS: [(&str, Prediction); 2] = [("eps", Prediction::Eps), ("v", Prediction::V)];

#[test]
fn samplers_end_where_the_references_end() {
    for sampler in Sampler::ALL {
        for (model, prediction) in MODELS {
            for steps in [5, 10, 20] {
                for scale in [1.0, 4.0] {
                    let guidance = Guidance { scale, rescale: false };
                    let settings = Sampling { steps, guidance, ..settings(prediction) };
                    check(&format!("{sampler} {model} {steps} {scale}"), &run(sampler, &settings).0);
                }
            }
            let rescaled = |scale| {
                let guidance = Guidance { scale, rescale: true };
                run(sampler, &Sampling { guidance, ..settings(prediction) }).0
            };
            check(&format!("{sampler} {model} rescaled"), &rescaled(4.0));
            if prediction == Prediction::V {
                check(&format!("{sampler} {model} less"), &rescaled(0.5));
            }
        }
    }
    let thirty = Sampling { steps: 30, ..settings(Prediction::V) };
    check("ddim 30", &run(Sampler::Ddim, &thirty).0);
}

#[test]
fn samplers_ask_what_the_references_ask() {
    let file = SafeTensors::deserialize(&GOLDENS).expect("a whole file");
    for (sampler, (model, prediction)) in Sampler::ALL.iter().flat_map(|&s| MODELS.map(|model| (s, model))) {
        let trace = run(sampler, &Sampling { steps: 5, ..settings(prediction) }).1;
        let name = format!("{sampler} {model} 5 4");
        // Here the prompt always comes first, in one call with the negative prompt.
        let mut known = file.tensor(&format!("{name} conditions")).expect("a golden").data().to_vec();
        if sampler == Sampler::DpmppM2 {
            known.as_chunks_mut::<2>().0.iter_mut().for_each(|pair| pair.reverse());
        }
        let got: Vec<u8> = trace.conditions.iter().map(|&c| u8::from(c == Condition::Negative)).collect();
        assert_eq!(got, known, "conditions of {name}");
        assert_eq!(trace.conditions.len(), 2 * trace.times.len(), "calls of {name}");
        let times = error(&trace.times, &golden(&format!("{name} times")));
        assert!(times < 1e-6, "times of {name}: {times:e}");
        let inputs = golden(&format!("{name} inputs"));
        for (call, (got, known)) in trace.inputs.chunks(120).zip(inputs.chunks(120)).enumerate() {
            let error = error(got, known);
            println!("{error:.1e} {name} call {call}");
            assert!(error < 1e-5, "{name}, call {call}: error {error:e} of the largest value");
        }
    }
}

#[test]
fn parameters_act_as_the_references() {
    let base = Parameters::default();
    let with = |sampler, parameters| run(sampler, &Sampling { parameters, ..settings(Prediction::V) }).0;
    for sampler in Sampler::ALL {
        let heeds = |parameter| sampler.heeds().contains(&parameter);
        if heeds(Parameter::SChurn) {
            let churned = Parameters { s_churn: 40.0, s_noise: 1.05, ..base };
            check(&format!("{sampler} churned"), &with(sampler, churned));
            let little = Parameters { s_churn: 2.0, ..base };
            check(&format!("{sampler} churned little"), &with(sampler, little));
        }
        if heeds(Parameter::Eta) {
            for eta in [0.0, 0.5, 1.2] {
                check(&format!("{sampler} eta {eta}"), &with(sampler, Parameters { eta, ..base }));
            }
            check(&format!("{sampler} s_noise"), &with(sampler, Parameters { s_noise: 1.05, ..base }));
        }
        if heeds(Parameter::Order) {
            for order in [1, 2, 3, 4, 8] {
                check(&format!("{sampler} order {order}"), &with(sampler, Parameters { order, ..base }));
            }
        }
    }
}

#[test]
fn a_sampler_ignores_what_it_does_not_heed() {
    // With churn, so that its limits and its noise have something to act on.
    let base = Parameters { s_churn: 5.0, ..Parameters::default() };
    for sampler in Sampler::ALL {
        let with = |parameters| run(sampler, &Sampling { parameters, ..settings(Prediction::V) }).0;
        let usual = with(base);
        for (parameter, changed) in [
            (Parameter::SChurn, Parameters { s_churn: 2.0, ..base }),
            (Parameter::STmin, Parameters { s_tmin: 5.0, ..base }),
            (Parameter::STmax, Parameters { s_tmax: 5.0, ..base }),
            (Parameter::SNoise, Parameters { s_noise: 1.05, ..base }),
            (Parameter::Eta, Parameters { eta: 0.5, ..base }),
            (Parameter::Order, Parameters { order: 3, ..base }),
        ] {
            let differs = with(changed) != usual;
            assert_eq!(differs, sampler.heeds().contains(&parameter), "{sampler} and {parameter:?}");
        }
    }
}

#[test]
fn starts_and_noisy_conditions_are_the_references() {
    for (sampler, (model, prediction)) in Sampler::ALL.iter().flat_map(|&s| MODELS.map(|model| (s, model))) {
        let settings = settings(prediction);
        let (schedule, clean) = (settings.schedule, c_img(SHAPE));
        // The start itself with the reference's numbers, as in `known_start`; then the noise of the condition.
        let mut noise = TorchNoise::new(Source::TorchCpu, 231);
        let drawn = known_start("x_T", &clean, &mut noise);
        let x_t = clean.with(schedule.q_sample(&clean.data, &drawn.data, 999));
        let mut again = TorchNoise::new(Source::TorchCpu, 231);
        let started = StartPoint::Cond.draw(schedule, &clean, LAST_T, &mut again);
        assert!(error(&started.data, &x_t.data) < 1e-6);
        let noisy = start::augment(schedule, clean, 150, &mut noise);
        check(&format!("{sampler} {model} started"), &sample(sampler, &settings, x_t, &noisy, &mut noise).0);
    }
}

/// A network that knows the picture takes every sampler to it from wherever it starts.
#[test]
fn a_start_midway_ends_at_the_picture() {
    let clean = c_img(SHAPE);
    let settings = Sampling { first_t: 699, steps: 7, ..settings(Prediction::V) };
    for sampler in Sampler::ALL {
        let mut noise = TorchNoise::new(Source::TorchCpu, 231);
        let x_t = StartPoint::Cond.draw(settings.schedule, &clean, settings.first_t, &mut noise);
        let mut times = Vec::new();
        let mut denoise = |x: &Latent, t: f64, conditions: &[Condition]| -> Result<_, Infallible> {
            times.push(t);
            let alpha_bar = settings.schedule.alpha_bar[t as usize];
            let (signal, spread) = (alpha_bar.sqrt() as f32, (1.0 - alpha_bar).sqrt() as f32);
            let v = x.zip(&clean, |x, clean| signal * (x - signal * clean) / spread - spread * clean);
            Ok(vec![v; conditions.len()])
        };
        let last = settings.run(sampler, x_t, &mut noise, &mut denoise, &mut |_| {});
        if !sampler.starts_midway() {
            assert!(last.is_err_and(|error| error.to_string().contains("can only start from noise")));
            continue;
        }
        let error = error(&last.expect("the settings go together").data, &clean.data);
        assert!(error < 2e-3, "{sampler} ends {error:e} of the largest value off");
        assert_eq!(times[0], 699.0, "{sampler}");
        assert!(times.iter().all(|&t| t <= 699.0), "{sampler}: {times:?}");
    }
}

#[test]
fn tiles_blend_as_the_references() {
    let c_img = c_img([1, 4, 24, 20]);
    let mut noise = TorchNoise::new(Source::TorchCpu, 231);
    let x_t = known_start("x_T tiled", &c_img, &mut noise);
    let mut denoise = |x: &Latent, t: f64, conditions: &[Condition]| -> Result<_, Infallible> {
        tiled::blend(x, 16, 8, &gaussian_weights(16), conditions.len(), |x, window| {
            let c_img = c_img.crop(window.y0, window.x0, 16, 16);
            Ok(conditions.iter().map(|&condition| network(x, t, condition, &c_img)).collect())
        })
    };
    let settings = Sampling { steps: 5, ..settings(Prediction::V) };
    let got = settings.run(Sampler::DEFAULT, x_t, &mut noise, &mut denoise, &mut |_| {});
    check("tiled", &got.expect("valid settings"));
}

#[test]
fn settings_that_cannot_work_are_refused() {
    let (eps, v) = (settings(Prediction::Eps), settings(Prediction::V));
    let refusal = |sampler, settings: Sampling| {
        let x = c_img(SHAPE);
        let mut denoise =
            |x: &Latent, _: f64, _: &[Condition]| -> Result<_, Infallible> { Ok(vec![x.clone()]) };
        match settings.run(sampler, x, &mut TorchNoise::new(Source::TorchCpu, 0), &mut denoise, &mut |_| {}) {
            Err(SampleError::Setting(text)) => text,
            other => panic!("{sampler} took it: {other:?}"),
        }
    };
    let steps = |settings: &Sampling<'static>, steps| Sampling { steps, ..settings.clone() };
    let text = refusal(Sampler::Spaced, steps(&eps, 1));
    assert_eq!(text, "the sampler `spaced` takes 2 to 1000 steps, not 1");
    let text = refusal(Sampler::Ddim, steps(&eps, 600));
    assert!(text.ends_with("the nearest it can do: 500"), "{text}");
    let text = refusal(Sampler::Ddim, steps(&v, 400));
    assert!(text.ends_with("the nearest it can do: 250"), "{text}");
    let text = refusal(Sampler::Ddim, steps(&v, 9));
    assert!(text.ends_with("the nearest it can do: 8 and 10"), "{text}");
    refusal(Sampler::Ddim, steps(&v, 0));
    refusal(Sampler::DpmppM2, steps(&v, 1));
    refusal(Sampler::DEFAULT, steps(&v, 0));
    refusal(Sampler::DEFAULT, steps(&v, 1001));
    for sampler in [Sampler::Spaced, Sampler::DEFAULT] {
        refusal(sampler, Sampling { schedule: v.schedule, ..eps.clone() });
    }
    let lms = "edm_lms".parse().expect("a sampler");
    for order in [0, 9] {
        refusal(lms, Sampling { parameters: Parameters { order, ..v.parameters }, ..v.clone() });
    }
}

#[test]
fn names_are_the_references() {
    for sampler in Sampler::ALL {
        assert_eq!(sampler.name().parse(), Ok(sampler));
    }
    assert!("euler".parse::<Sampler>().is_err_and(|error| error.contains("edm_dpm++_2s_a, edm_dpm++_sde")));
}
