//! What recipes promise.

use diffbir_imaging::Raster;
use diffbir_train::degrade::chain::{Chain, Drawn as Steps, DrawnStep};
use diffbir_train::degrade::kernels::{Kernel, Profile};
use diffbir_train::degrade::noise::{Kind, Noise};
use diffbir_train::degrade::{Drawn, PRESETS, Recipe, generator, preset};
use std::collections::BTreeMap;
use std::f32::consts::PI;

#[test]
fn draws_are_as_frequent_as_asked_for() {
    const COUNT: u64 = 4000;
    let recipe = preset("realesrgan");
    let mut seen: BTreeMap<String, f64> = BTreeMap::new();
    for seed in 0..COUNT {
        let Drawn::Chain(drawn) = recipe.draw(&mut generator(seed, "")) else { panic!() };
        let mut see = |what: String| *seen.entry(what).or_default() += 1.0 / COUNT as f64;
        let DrawnStep::Blur(first) = drawn.steps[0] else { panic!() };
        see(format!("size {}", first.size_px()));
        match first {
            Kernel::Sinc { cutoff_rad, .. } => {
                assert!((0.2 * PI..=PI).contains(&cutoff_rad));
                see("sinc".into());
            }
            Kernel::Bell { sigma_px: [a, b], profile, .. } => {
                assert!((0.2..=3.0).contains(&a) && (0.2..=3.0).contains(&b));
                let kind = match profile {
                    Profile::Gaussian => "gaussian",
                    Profile::Generalized(beta) if beta < 1.0 => "generalized below",
                    Profile::Generalized(_) => "generalized above",
                    Profile::Plateau(_) => "plateau",
                };
                see(format!("{kind} {}", if a == b { "iso" } else { "aniso" }));
            }
            Kernel::Impulse => panic!(),
        }
        let DrawnStep::Resize { scale, filter, .. } = drawn.steps[1] else { panic!() };
        see(if scale > 1.0 {
            "up"
        } else if scale < 1.0 {
            "down"
        } else {
            "keep"
        }
        .into());
        see(format!("{filter:?}"));
        let DrawnStep::Noise(noise) = drawn.steps[2] else { panic!() };
        see(if noise.grey { "grey" } else { "colour" }.into());
        see(if matches!(noise.kind, Kind::Gaussian(_)) { "normal" } else { "photons" }.into());
        let blurs = drawn.steps.iter().filter(|step| matches!(step, DrawnStep::Blur(_))).count();
        see(format!("{blurs} blurs"));
        let back = drawn.steps[drawn.steps.len() - 3..].first();
        see(if matches!(back, Some(DrawnStep::Compress { .. })) { "compressed last" } else { "rung last" }
            .into());
    }
    for (what, expected) in [
        ("sinc", 0.1),
        ("gaussian iso", 0.405),
        ("gaussian aniso", 0.225),
        ("generalized below iso", 0.054),
        ("generalized above iso", 0.054),
        ("plateau aniso", 0.027),
        ("size 7", 0.125),
        ("size 21", 0.125),
        ("up", 0.2),
        ("down", 0.7),
        ("Area", 1.0 / 3.0),
        ("grey", 0.4),
        ("normal", 0.5),
        ("3 blurs", 0.8),
        ("compressed last", 0.5),
    ] {
        let is = seen[what];
        // Four standard deviations.
        let most = 4.0 * (expected * (1.0 - expected) / COUNT as f64).sqrt();
        assert!((is - expected).abs() < most, "{what}: {is}");
    }
}

#[test]
fn a_degradation_is_repeated_from_its_json() {
    let data = (0..96 * 80 * 3).map(|i| (i * 37 % 256) as f32 / 255.0).collect();
    let picture = Raster { width_px: 96, height_px: 80, channels: 3, data };
    for (name, _) in PRESETS {
        for seed in 0..8 {
            let drawn = preset(name).draw(&mut generator(seed, "a.png"));
            assert_eq!(drawn.fault(), None, "{name}");
            let json = serde_json::to_string(&drawn).unwrap();
            let read: Drawn = serde_json::from_str(&json).unwrap();
            assert_eq!(drawn, read, "{name}");
            assert_eq!(drawn.apply(&picture).unwrap(), read.apply(&picture).unwrap(), "{name}");
        }
    }
}

#[test]
fn a_batch_shares_what_the_reference_shares() {
    let Recipe::Chain(chain) = preset("realesrgan") else { panic!() };
    let drawn: Vec<Steps> = (0..20).flat_map(|seed| chain.draw_batch(3, &mut generator(seed, ""))).collect();
    let mut patterns = 0;
    for batch in drawn.chunks_exact(3) {
        assert!(batch.iter().all(|other| other.steps.len() == batch[0].steps.len()));
        for index in 0..batch[0].steps.len() {
            match [0, 1, 2].map(|picture| &batch[picture].steps[index]) {
                [DrawnStep::Resize { .. }, ..] => {
                    assert!(batch.iter().all(|d| d.steps[index] == batch[0].steps[index]))
                }
                [DrawnStep::Compress { quality: a, .. }, DrawnStep::Compress { quality: b, .. }, _] => {
                    assert_ne!(a, b);
                }
                [DrawnStep::Noise(a), DrawnStep::Noise(b), DrawnStep::Noise(c)] => {
                    let is_gaussian = |noise: &Noise| matches!(noise.kind, Kind::Gaussian(_));
                    assert!(is_gaussian(a) == is_gaussian(b) && is_gaussian(b) == is_gaussian(c));
                    assert_ne!(a.kind, b.kind);
                    let is_same = a.seed == b.seed;
                    assert_eq!(is_same, is_gaussian(a) && a.grey && b.grey);
                    patterns += usize::from(is_same);
                }
                _ => {}
            }
        }
    }
    assert!(patterns > 0);
}

#[test]
fn orders_of_the_article_are_counted() {
    let count = |text: &str| {
        let recipe = Recipe::from_toml(text).unwrap();
        let Drawn::Chain(drawn) = recipe.draw(&mut generator(1, "")) else { panic!() };
        drawn.steps.iter().filter(|step| matches!(step, DrawnStep::Noise(_))).count()
    };
    let article = PRESETS.iter().find(|(name, _)| *name == "article").unwrap().1;
    assert_eq!(count(article), 3);
    assert_eq!(count(&article.replace("times = 3", "times = 5")), 5);
}

#[test]
fn errors_name_the_line_the_key_and_what_is_accepted() {
    let error = |text: &str| Recipe::from_toml(text).unwrap_err().to_string();
    let chain = |step: &str| format!("[chain]\nsteps = [\n  \"round\",\n  {step},\n]\n");
    for (step, parts) in [
        ("{ noise = { sigma_levels = [3, 900] } }", vec!["line 4", "sigma_levels", "0 to 255"]),
        ("{ noise = { sigma_levels = [9, 3] } }", vec!["line 4", "sigma_levels", "a not above b"]),
        ("{ noise = { sigma_levels = \"x\" } }", vec!["line 4", "sigma_levels", "0 to 255"]),
        ("{ noise = { gray = 0.1 } }", vec!["line 4", "gray", "grey"]),
        ("{ noise = { grey = 2 } }", vec!["line 4", "grey", "0 to 1"]),
        ("{ nose = {} }", vec!["line 4", "nose", "noise"]),
        ("{ compress = { codecs = [\"gif\"], quality = 3 } }", vec!["line 4", "gif", "diffjpeg"]),
        ("{ compress = { codecs = [], quality = 3 } }", vec!["line 4", "at least one"]),
        ("{ compress = { codecs = [\"jpeg\"] } }", vec!["line 4", "quality"]),
        ("{ blur = { size_px = 7, kinds = { iso = -1 } } }", vec!["line 4", "kinds"]),
        ("{ blur = { size_px = nan, kinds = { iso = 1 } } }", vec!["line 4", "size_px", "1 to 101"]),
    ] {
        let told = error(&chain(step));
        assert!(parts.iter().all(|part| told.contains(part)), "{step}: {told}");
    }
    let round = "\"round\"".to_string();
    let nested = (0..6).fold(round, |steps, _| format!("{{ repeat = {{ times = 10, steps = [{steps}] }} }}"));
    assert!(error(&chain(&nested)).contains("200 are the most"));
    assert!(error("[simple]\nfactor = 0\n").contains("line 2: expected factor = a number from 1 to 16"));
    assert!(error("[chain\n").contains("line 1"));
    assert!(Recipe::from_toml("").is_err());
    let recipe = |text: &str| Recipe::from_toml(text).unwrap();
    assert_eq!(recipe(&chain("\"round\"")).with_factor(2), None);
    let Some(Recipe::Chain(Chain { factor, .. })) = preset("codeformer").with_factor(2) else { panic!() };
    assert_eq!((factor.low, factor.high), (2.0, 2.0));
}
