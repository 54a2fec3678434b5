//! Degradations against the reference (`goldens/make_degrade.py`).

use diffbir_imaging::Raster;
use diffbir_train::degrade::chain::{Drawn as Steps, DrawnStep, Step};
use diffbir_train::degrade::kernels::{Kernel, Kind as KernelKind};
use diffbir_train::degrade::limits::Span;
use diffbir_train::degrade::noise::{Kind, Noise};
use diffbir_train::degrade::pool::Pool;
use diffbir_train::degrade::resample::{Filter, resize};
use diffbir_train::degrade::{Drawn, Recipe, filter, generator, jpeg, preset, usm};
use safetensors::SafeTensors;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

struct Goldens {
    bytes: Vec<u8>,
    cases: Value,
}

impl Goldens {
    fn open() -> Self {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/degrade");
        let cases = std::fs::read_to_string(format!("{folder}.json")).unwrap();
        let bytes = std::fs::read(format!("{folder}.safetensors")).unwrap();
        Self { bytes, cases: serde_json::from_str(&cases).unwrap() }
    }

    /// A group's cases: their names and what they are of.
    fn cases<T: DeserializeOwned>(&self, group: &str) -> Vec<(String, T)> {
        let cases = self.cases[group].as_array().unwrap();
        assert!(!cases.is_empty());
        let one = |case: &Value| {
            let name = format!("{group}/{}", case["name"].as_str().unwrap_or_default());
            (name, serde_json::from_value(case.clone()).unwrap())
        };
        cases.iter().map(one).collect()
    }

    fn bytes(&self, name: &str) -> (Vec<usize>, Vec<u8>) {
        let tensors = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = tensors.tensor(name).unwrap();
        (tensor.shape().to_vec(), tensor.data().to_vec())
    }

    fn f32(&self, name: &str) -> Raster {
        let (shape, bytes) = self.bytes(name);
        let data = bytes.chunks_exact(4).map(|four| f32::from_le_bytes(four.try_into().unwrap())).collect();
        Raster { width_px: shape[1], height_px: shape[0], channels: shape[2], data }
    }

    fn u8(&self, name: &str) -> Raster {
        let (shape, bytes) = self.bytes(name);
        Raster::from_u8(shape[1], shape[0], shape[2], &bytes)
    }

    fn small(&self) -> Raster {
        self.u8("small")
    }
}

#[derive(Deserialize)]
struct OfKernel {
    drawn: Kernel,
}

#[derive(Deserialize)]
struct OfDrawn {
    drawn: Drawn,
    quality: Option<f32>,
}

#[derive(Deserialize)]
struct OfResize {
    filter: Filter,
    scale: Option<f64>,
}

#[derive(Deserialize)]
struct OfQuality {
    quality: f32,
}

#[derive(Deserialize)]
struct OfNoise {
    kind: Kind,
    grey: bool,
    mean: f64,
    deviation: f64,
    quantiles: Vec<f64>,
}

/// The largest difference, which may be at most `most`.
fn close(name: &str, ours: &Raster, theirs: &Raster, most: f32) {
    assert_eq!((ours.width_px, ours.height_px), (theirs.width_px, theirs.height_px), "{name}");
    let differ = ours.data.iter().zip(&theirs.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    println!("{name}: {differ:.1e}");
    assert!(differ <= most, "{name}: {differ:.1e}");
}

#[test]
fn kernels() {
    let goldens = Goldens::open();
    for (name, OfKernel { drawn }) in goldens.cases("kernels") {
        let theirs: Vec<f64> = goldens
            .bytes(&name)
            .1
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes(b.try_into().unwrap()))
            .collect();
        let ours = drawn.weights();
        assert_eq!(ours.len(), theirs.len());
        let differ = ours.iter().zip(&theirs).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        println!("{name}: {differ:.1e}");
        assert!(differ < 1e-12, "{name}: {differ:.1e}");
    }
}

#[test]
fn filters_and_sharpening() {
    let goldens = Goldens::open();
    for (name, OfKernel { drawn }) in goldens.cases("filters") {
        let ours = filter::square(&goldens.small(), &drawn.weights());
        close(&name, &ours, &goldens.f32(&name), 2e-6);
    }
    close("usm", &usm::sharpen(&goldens.small()), &goldens.f32("usm/usm"), 1e-6);
}

#[test]
fn resizes() {
    let goldens = Goldens::open();
    let picture = goldens.small().crop(0, 0, 31, 29);
    for (name, OfResize { filter, scale }) in goldens.cases("resizes") {
        let theirs = goldens.f32(&name);
        let ours = resize(&picture, theirs.width_px, theirs.height_px, scale, filter);
        close(&name, &ours, &theirs, 1e-6);
        if let Some(scale) = scale {
            // The size that a recipe gives it.
            let step = DrawnStep::Resize { to: Default::default(), scale: scale as f32, filter };
            let steps = Steps { factor: 1.0, sharpen: false, steps: vec![step] };
            assert_eq!(steps.apply(&picture).unwrap(), ours, "{name}");
        }
    }
}

#[test]
fn diff_jpeg() {
    let goldens = Goldens::open();
    for (name, OfQuality { quality }) in goldens.cases("diffjpeg") {
        close(&name, &jpeg::diff_jpeg(&goldens.small(), quality), &goldens.f32(&name), 1e-5);
    }
}

/// Files of another encoder and decoder: near those of OpenCV, and as far from the picture.
#[test]
fn real_jpeg() {
    let goldens = Goldens::open();
    let picture = goldens.small();
    for (name, OfQuality { quality }) in goldens.cases("jpeg") {
        let compress = serde_json::json!({ "compress": { "codec": "jpeg", "quality": quality } });
        let steps =
            Steps { factor: 1.0, sharpen: false, steps: vec![serde_json::from_value(compress).unwrap()] };
        let (ours, theirs) = (steps.apply(&picture).unwrap(), goldens.u8(&name));
        let levels = |a: &Raster, b: &Raster| {
            let sum: f32 = a.data.iter().zip(&b.data).map(|(a, b)| (a - b).abs() * 255.0).sum();
            sum / a.data.len() as f32
        };
        let (apart, lost, loses) =
            (levels(&ours, &theirs), levels(&ours, &picture), levels(&theirs, &picture));
        println!("{name}: {apart:.3} levels apart; {lost:.2} and {loses:.2} from the picture");
        assert!(apart < 0.75 && (lost - loses).abs() < 0.02 * loses, "{name}");
    }
}

#[test]
fn noise_has_the_distribution_of_the_reference() {
    let goldens = Goldens::open();
    let levels: Vec<f64> = serde_json::from_value(goldens.cases["levels"].clone()).unwrap();
    let picture = goldens.small();
    for (_, OfNoise { kind, grey, mean, deviation, quantiles }) in goldens.cases("noises") {
        let mut added = Vec::new();
        for seed in 0..64 {
            let out = Noise { kind, grey, seed }.added(&picture);
            added.extend(out.iter().map(|&value| f64::from(value)));
        }
        added.sort_by(f64::total_cmp);
        let count = added.len() as f64;
        let ours = added.iter().sum::<f64>() / count;
        let spread = (added.iter().map(|x| (x - ours).powi(2)).sum::<f64>() / count).sqrt();
        println!("{kind:?} grey {grey}: mean {ours:.1e} {mean:.1e}, deviation {spread:.5} {deviation:.5}");
        assert!((ours - mean).abs() < 0.02 * deviation && (spread / deviation - 1.0).abs() < 0.01);
        // Photons are counted: much may lie at a quantile itself.
        for (level, at) in levels.iter().zip(quantiles) {
            let below = added.partition_point(|value| *value < at - 1e-6) as f64 / count;
            let not_above = added.partition_point(|value| *value <= at + 1e-6) as f64 / count;
            assert!(below < level + 0.004 && not_above > level - 0.004, "{level}: {below} {not_above}");
        }
    }
}

#[test]
fn whole_degradations_are_those_of_the_reference() {
    let goldens = Goldens::open();
    for (name, OfDrawn { drawn, quality }) in goldens.cases("codeformer") {
        // Where a JPEG file is on the way, another codec wrote it.
        let most = if quality.is_some() { 0.05 } else { 3e-6 };
        close(&name, &drawn.apply(&goldens.small()).unwrap(), &goldens.f32(&name), most);
    }
    for (name, OfDrawn { drawn, .. }) in goldens.cases("realesrgan") {
        let (ours, theirs) = (drawn.apply(&goldens.u8("large")).unwrap(), goldens.u8(&name));
        let differ =
            ours.data.iter().zip(&theirs.data).filter(|(a, b)| (**a - **b).abs() > 1e-6).count() as f32;
        println!("{name}: {:.4} % of the bytes differ", 100.0 * differ / ours.data.len() as f32);
        close(&name, &ours, &theirs, 1.0 / 255.0 + 1e-6);
        assert!(differ < 1e-3 * ours.data.len() as f32, "{name}: {differ}");
    }
}

#[test]
fn pairs_leave_the_pool_in_the_order_of_the_reference() {
    #[derive(Deserialize)]
    struct Queue {
        size: usize,
        batch: usize,
        orders: Vec<Vec<usize>>,
        left: Vec<Vec<usize>>,
    }
    let queue: Queue = serde_json::from_value(Goldens::open().cases["pool"].clone()).unwrap();
    let mut pool = Pool::new(queue.size, queue.batch).unwrap();
    for (index, (order, left)) in queue.orders.iter().zip(queue.left).enumerate() {
        let batch = (index * queue.batch..(index + 1) * queue.batch).collect();
        assert_eq!(pool.exchange_by(batch, order), left, "{index}");
    }
    assert!(Pool::<u8>::new(6, 4).is_none());
    // Nothing is lost or doubled by chance either.
    let (mut pool, mut random) = (Pool::new(8, 2).unwrap(), generator(1, "pool"));
    let left: Vec<usize> =
        (0..50).flat_map(|first| pool.exchange(vec![2 * first, 2 * first + 1], &mut random)).collect();
    let mut later = left[8..].to_vec();
    later.sort_unstable();
    later.dedup();
    assert_eq!(later.len(), left.len() - 8);
}

/// A span as the reference's configurations have it.
fn span(value: &Value) -> Span {
    let [low, high] = serde_json::from_value(value.clone()).unwrap();
    Span { low, high }
}

#[test]
fn presets_have_the_numbers_of_the_reference() {
    let settings = &Goldens::open().cases["settings"];
    let chain = |name: &str| match preset(name) {
        Recipe::Chain(chain) => chain,
        Recipe::Simple(_) => panic!("{name}"),
    };
    let theirs = &settings["codeformer"];
    let ours = chain("codeformer");
    let [Step::Blur(blur), Step::Resize(_), Step::Noise(noise), Step::Compress(jpeg), Step::Resize(_)] =
        &ours.steps[..]
    else {
        panic!()
    };
    assert_eq!((blur.size_px.low, blur.size_px.high), (41.0, 41.0));
    assert_eq!((&theirs["blur_kernel_size"], &theirs["kernel_prob"]), (&41.into(), &vec![0.5, 0.5].into()));
    assert!(blur.kinds.values().all(|weight| *weight == 0.5) && blur.kinds.len() == 2);
    assert_eq!(
        [ours.factor, blur.sigma_px, noise.sigma_levels, jpeg.quality],
        ["downsample_range", "blur_sigma", "noise_range", "jpeg_range"].map(|key| span(&theirs[key]))
    );

    let ours = chain("realesrgan");
    let (kernels, theirs) = (&settings["kernels"], &settings["realesrgan"]);
    assert!(ours.sharpen && theirs["use_sharpener"] == true && theirs["stage2_scale"] == ours.factor.low);
    for (order, steps) in ["", "2"].iter().zip([&ours.steps[..3], &ours.steps[4..7]]) {
        let of = |settings: &Value, key: &str| settings[format!("{key}{order}")].clone();
        let [Step::Blur(blur), Step::Resize(resize), Step::Noise(noise)] = steps else { panic!() };
        let sinc = of(kernels, "sinc_prob").as_f64().unwrap();
        let weights: Vec<f64> = serde_json::from_value(of(kernels, "kernel_prob")).unwrap();
        let weights: Vec<f64> = weights.iter().map(|weight| weight * (1.0 - sinc)).chain([sinc]).collect();
        assert!(blur.kinds.values().zip(weights).all(|(a, b)| (a - b).abs() < 1e-12), "{order}");
        assert_eq!(
            [blur.sigma_px, blur.beta_generalized, blur.beta_plateau],
            ["blur_sigma", "betag_range", "betap_range"].map(|key| span(&of(kernels, key)))
        );
        let chances = of(theirs, "resize_prob");
        assert_eq!((&chances[0], &chances[1]), (&resize.up.into(), &resize.down.into()));
        assert_eq!(
            (of(theirs, "gray_noise_prob"), of(theirs, "gaussian_noise_prob")),
            (noise.grey.into(), noise.gaussian.into())
        );
        assert_eq!(
            [resize.scale, noise.sigma_levels, noise.poisson_scale],
            ["resize_range", "noise_range", "poisson_scale_range"].map(|key| span(&of(theirs, key)))
        );
    }
    let Step::Compress(first) = &ours.steps[3] else { panic!() };
    assert_eq!(first.quality, span(&theirs["jpeg_range"]));
    let (Step::Blur(second), Step::Either(last)) = (&ours.steps[4], &ours.steps[7]) else { panic!() };
    assert_eq!(theirs["second_blur_prob"], second.chance);
    let mut counted = 0;
    for step in last.first.iter().chain(&last.second) {
        match step {
            Step::Compress(jpeg) => assert_eq!(jpeg.quality, span(&theirs["jpeg_range2"])),
            Step::Blur(sinc) => assert_eq!(kernels["final_sinc_prob"], sinc.kinds[&KernelKind::Sinc]),
            _ => continue,
        }
        counted += 1;
    }
    assert_eq!(counted, 4);
}
