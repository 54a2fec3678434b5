//! The metrics against the packages that the field uses (goldens made by `goldens/make.py`), and against
//! the values logged for a method's own results.

#[path = "../../models/tests/parity/support.rs"]
mod support;

use burn::tensor::{Device, TensorData};
use diffbir_metrics::{
    Backbone, Channels, Features, Lpips, Luma, Niqe, Picture, frechet_distance, ms_ssim, psnr, ssim,
};
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{Init, Source, build, keys_of};
use diffbir_nn::{Params, WeightError};
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{Formula, filler};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens")
}

fn json(name: &str) -> Value {
    let text = std::fs::read_to_string(goldens().join(name)).expect("goldens are in the repository");
    serde_json::from_str(&text).expect("JSON")
}

fn number(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn close(name: &str, found: f64, known: &Value, allowed: f64) {
    let error = (found - number(known)).abs();
    println!("{name}: {found:.7}, off by {error:.1e} of {allowed:.1e}");
    assert!(error <= allowed, "{name}: {found} where {known} is known");
}

fn truth() -> Picture {
    Picture::open(&goldens().join("chelsea.png")).expect("a picture")
}

/// Blurred and noisy, in the integers of `make.py`.
fn worse() -> Picture {
    let truth = truth();
    let noise = filler(0, "in/metrics_noise", truth.rgb.len());
    let row = 3 * truth.width_px;
    let value = |i: usize| {
        let left = if i % row < 3 { i } else { i - 3 };
        let blurred = (i32::from(truth.rgb[i]) + i32::from(truth.rgb[left]) + 1) / 2;
        (blurred + (12.0 * noise[i]).floor() as i32).clamp(0, 255) as u8
    };
    Picture { rgb: (0..truth.rgb.len()).map(value).collect(), ..truth }
}

#[test]
fn psnr_and_structural_similarity_are_pyiqas() {
    let (a, b, known) = (worse(), truth(), json("values.json"));
    for (name, channels) in [("rgb", Channels::Rgb), ("luma", Channels::Luma)] {
        // pyiqa rounds its weights of luma and its window to f32.
        close("psnr", psnr(&a, &b, channels).unwrap(), &known["psnr"][name], 1e-6);
        close("ssim", ssim(&a, &b, channels).unwrap(), &known["ssim"][name], 2e-6);
        close("ms_ssim", ms_ssim(&a, &b, channels).unwrap(), &known["ms_ssim"][name], 2e-6);
    }
}

/// Weights by the formula; those of layers as the authors' are, not negative.
struct Positive(Formula);

impl Source for Positive {
    fn values(&mut self, key: &str, shape: &[usize], init: Init) -> Result<Vec<f32>, WeightError> {
        let values = self.0.values(key, shape, init)?;
        let positive = key.starts_with("lin");
        Ok(values.into_iter().map(|value| if positive { value.abs() } else { value }).collect())
    }
}

#[test]
fn lpips_is_the_authors() {
    check_lpips(Backbone::AlexNet, 15, &json("values.json")["lpips"]);
}

#[test]
fn lpips_with_vgg_is_the_authors() {
    check_lpips(Backbone::Vgg16, 31, &json("vgg_fid.json")["lpips_vgg"]);
}

fn check_lpips(backbone: Backbone, tensors: usize, known: &Value) {
    let network = |params: &Params| Lpips::new(params, backbone);
    let keys = keys_of(network).unwrap();
    assert_eq!(keys.entries().len(), tensors);
    let (lpips, _) = build(&mut Positive(Formula { salt: 0 }), &Device::flex(), network).unwrap();
    let cut = |picture: Picture| {
        let rows = (20..67).flat_map(|y| &picture.rgb[3 * (y * picture.width_px + 30)..][..3 * 65]);
        Picture { width_px: 65, height_px: 47, rgb: rows.copied().collect() }
    };
    for (name, a, b) in [("288x208", worse(), truth()), ("65x47", cut(worse()), cut(truth()))] {
        let found = lpips.distances(&a, &b).unwrap();
        assert_eq!(found.len(), 5);
        for (layer, found) in found.iter().enumerate() {
            let known = &known[name][layer];
            close(&format!("{name} layer {layer}"), *found, known, 2e-5 * number(known));
        }
        assert_eq!(lpips.distance(&b, &b).unwrap(), 0.0);
    }
}

#[test]
fn weights_of_lpips_may_lie_in_two_files() {
    let network = |params: &Params| Lpips::new(params, Backbone::AlexNet);
    let keys = keys_of(network).unwrap();
    let (whole, _) = build(&mut Positive(Formula { salt: 0 }), &Device::flex(), network).unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let write = |name: &str, part: &dyn Fn(&str) -> bool, more: bool| {
        let mut tensors = keys.tensors(&whole);
        tensors.retain(|name, _| part(name));
        if more {
            tensors.insert("classifier.1.bias".into(), TensorData::new(vec![0f32; 4], [4]));
        }
        let path = folder.path().join(name);
        std::fs::write(&path, Checkpoint::from_tensors(tensors).to_safetensors(false).unwrap()).unwrap();
        path
    };
    let all = write("all.safetensors", &|_| true, false);
    let backbone = write("backbone.safetensors", &|name| name.starts_with("features"), true);
    let linear = write("linear.safetensors", &|name| name.starts_with("lin"), false);
    let known = whole.distance(&worse(), &truth()).unwrap();
    for files in [vec![&all], vec![&backbone, &linear], vec![&linear, &backbone]] {
        let found = Lpips::open(&files, Backbone::AlexNet, &Device::flex()).unwrap();
        assert_eq!(found.distance(&worse(), &truth()).unwrap(), known);
    }
    for files in [vec![&backbone], vec![&linear], vec![&linear, &linear]] {
        assert!(Lpips::open(&files, Backbone::AlexNet, &Device::flex()).is_err());
    }
    let error = Lpips::open(&[&all], Backbone::Vgg16, &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("all.safetensors"), "{error}");
}

#[test]
fn frechet_distances_are_scipys() {
    let known = json("vgg_fid.json");
    for (name, width, a, b) in [("many", 24, 60, 50), ("few", 24, 15, 20), ("wide", 130, 300, 200)] {
        let a: Vec<f64> = filler(0, "fid/a", a * width).into_iter().map(f64::from).collect();
        let b: Vec<f64> =
            filler(0, "fid/b", b * width).into_iter().map(|x| 0.5 * f64::from(x) + 0.25).collect();
        let [a, b] = [a, b].map(|rows| Features::of_rows(&rows, width).unwrap());
        let found = frechet_distance(&a, &b).unwrap();
        close(&format!("{name} svd"), found, &known["fid"][name]["svd"], 1e-9);
        // scipy's root of a matrix that has none but in the limit is off by itself.
        let allowed = if name == "few" { 1e-4 } else { 1e-9 };
        close(&format!("{name} sqrtm"), found, &known["fid"][name]["sqrtm"], allowed);
        assert!((frechet_distance(&b, &a).unwrap() - found).abs() < 1e-10);
        assert!(frechet_distance(&a, &a).unwrap().abs() < 1e-9);
    }
}

#[test]
fn niqe_is_pyiqas() {
    check_niqe(&goldens().join("niqe_formula.npz"), "formula");
}

#[test]
#[ignore = "needs BasicSR's niqe_pris_params.npz, its path in DIFFBIR_NIQE"]
fn niqe_with_its_authors_parameters_is_pyiqas() {
    check_niqe(&from_environment("DIFFBIR_NIQE"), "official");
}

fn check_niqe(parameters: &Path, of: &str) {
    let (niqe, known) = (Niqe::open(parameters).unwrap(), &json("values.json")["niqe"][of]);
    for (name, picture) in [("truth", truth()), ("worse", worse())] {
        for (colours, luma) in [("full", Luma::Full), ("studio", Luma::Studio)] {
            let (found, known) = (niqe.score(&picture, luma).unwrap(), &known[name]);
            close(&format!("{name} {colours}"), found, &known["double"][colours], 1e-5);
            // With what pyiqa rounds to f32: halves of luma and its windows.
            close(&format!("{name} {colours}, as shipped"), found, &known["shipped"][colours], 1e-2);
        }
    }
}

#[test]
#[ignore = "needs pictures: preset/datasets/benchmark_realsr of github.com/cswry/OSEDiff, its path in DIFFBIR_OSEDIFF"]
fn the_values_logged_for_osediff_are_found_again() {
    let folder = from_environment("DIFFBIR_OSEDIFF");
    let known = json("osediff.json");
    for (name, known) in known.as_object().expect("pairs") {
        let open = |part: &str| Picture::open(&folder.join(part).join(name)).unwrap();
        let (result, truth) = (open("results_osediff"), open("test_HR"));
        // The log's PSNR has 1e-8 added to the error of values 0..1.
        let error = 10f64.powf(-psnr(&result, &truth, Channels::Luma).unwrap() / 10.0);
        close(&format!("{name} PSNR"), -10.0 * (error + 1e-8).log10(), &known["PSNR"], 5e-6);
        let found = ssim(&result, &truth, Channels::Luma).unwrap();
        close(&format!("{name} SSIM"), found, &known["SSIM"], 2e-6);
    }
}

fn from_environment(variable: &str) -> PathBuf {
    std::env::var_os(variable).unwrap_or_else(|| panic!("set {variable} to a path")).into()
}
