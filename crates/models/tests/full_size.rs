//! The networks at official size against the reference's own results (`goldens/full.py`), layer by layer.
//!
//!     cargo test --release --workspace --test full_size -- --ignored --nocapture --test-threads 1
//!
//! Each prints the largest error of its layers, its time and the peak of its process's memory.

#[path = "parity/support.rs"]
mod support;

use burn::tensor::{Device, Int, Tensor, TensorData};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::clip::ClipTextConfig;
use diffbir_models::controlnet::ControlNet;
use diffbir_models::gfpgan::GfpganConfig;
use diffbir_models::kl::KlConfig;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::unet::UnetConfig;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{build_in, keys_of};
use diffbir_nn::{Params, Precision, WeightError};
use std::io::Write;
use std::time::Instant;
use support::{Golden, context, filler, given, keyed, picture, root3};

/// Runs a network, telling how long it took and the most memory that the process ever had.
fn measured<R>(name: &str, run: impl FnOnce() -> R) -> R {
    let since = Instant::now();
    let result = run();
    let peak = memory("VmHWM:").map_or("unknown".into(), |bytes| format!("{:.2} GB", bytes as f64 / 1e9));
    println!("{name}: {:.1} s, {peak} at most", since.elapsed().as_secs_f64());
    result
}

/// A number of bytes that the system tells about this process: `VmRSS:` now, `VmHWM:` the most.
fn memory(line: &str) -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|found| found.strip_prefix(line))?.trim().strip_suffix(" kB")?;
    Some(kibibytes.parse::<usize>().ok()? << 10)
}

#[test]
#[ignore = "official size: needs about .5 GB and 1 minute"]
fn swinir_is_the_references() {
    let golden = Golden::open("full_swinir");
    let (network, keys) = keyed(0, |params| SwinIrConfig::official().build(params));
    let x = given("full_swinir_512x512", [1, 3, 512, 512], picture);
    let out = measured("SwinIR 512x512", || golden.check_layers("layers", &keys, || network.forward(x)));
    golden.check("out", out);
}

#[test]
#[ignore = "official size: needs about 2 GB and some seconds"]
fn gfpgan_is_its_authors() {
    let golden = Golden::open("full_gfpgan");
    let (network, keys) = keyed(0, |params| GfpganConfig::official().build(params));
    let x = given("full_gfpgan_512x512", [1, 3, 512, 512], picture);
    let out = measured("GFPGAN 512x512", || golden.check_layers("layers", &keys, || network.forward(x)));
    golden.check("out", out);
}

#[test]
#[ignore = "official size: needs about 2 GB and some seconds"]
fn the_text_encoder_is_the_references() {
    let golden = Golden::open("full_clip");
    let (network, _) = keyed(0, |params| ClipTextConfig::official().build(params));
    let mut ids: Vec<i64> =
        filler(0, "in/clip", 77).into_iter().map(|u| ((f64::from(u) + 1.0) / 2.0 * 49408.0) as i64).collect();
    ids.extend([49406, 49407]);
    ids.resize(2 * 77, 0);
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [2, 77]), &Device::flex());
    let out = measured("text encoder", || network.forward(ids));
    golden.compare("out", &out.dims(), &out.into_data().iter::<f32>().collect::<Vec<_>>());
}

#[test]
#[ignore = "official size: needs about 2 GB and 2 minutes"]
fn the_autoencoder_is_the_references() {
    let golden = Golden::open("full_vae");
    let config = KlConfig { scale: 1.0, ..KlConfig::official() };
    let (network, keys) = keyed(0, |params| config.build(params));
    let x = given("full_vae_512x512", [1, 3, 512, 512], picture);
    let moments = measured("VAE encode 512x512", || {
        golden.check_layers("encoder.layers", &keys, || network.moments(x))
    });
    golden.check("mean", moments.clone().slice_dim(3, 0..4));
    golden.check("logvar", moments.slice_dim(3, 4..8).clamp(-30.0, 20.0));
    let z = given("full_vae_latent_64x64", [1, 4, 64, 64], root3);
    let decoded =
        measured("VAE decode 512x512", || golden.check_layers("decoder.layers", &keys, || network.decode(z)));
    golden.check("decoded", decoded * 2.0 - 1.0);
}

#[test]
#[ignore = "official size: needs about 4 GB and 1 minute"]
fn unet_and_control_branch_are_the_references() {
    let golden = Golden::open("full_unet");
    let config = UnetConfig::official();
    let (x, hint) = (given("full_x", [1, 4, 64, 64], root3), given("full_c_img", [1, 4, 64, 64], root3));
    let (tokens, time) =
        (context("full_context", [1, 77, 1024]), Tensor::from_floats([499.0], &Device::flex()));
    let extra = {
        let (control, keys) = keyed(0, |params| ControlNet::new(params, &config));
        let run = || control.forward(x.clone(), hint, Tensor::clone(&time), tokens.clone(), 1.0);
        measured("ControlNet 64x64", || golden.check_layers("control.layers", &keys, run))
    };
    let (unet, keys) = keyed(0, |params| config.build(params));
    let run = || unet.forward(x.clone(), time, Some(tokens), Some(extra));
    let out = measured("UNet 64x64", || golden.check_layers("unet.layers", &keys, run));
    golden.check("both", out);
}

/// A file of 4.9 GB (mostly a hole) becomes networks held in 16 bits: half the file, and one tensor more as it is read,
/// as floats, and turned.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "official size: needs 3 GB and some seconds"]
fn a_file_costs_its_weights_and_a_tensor_while_it_is_read() {
    type Networks = (diffbir_models::unet::Unet, ControlNet);
    let config = UnetConfig::official();
    let networks = |params: &Params| -> Result<Networks, WeightError> {
        Ok((config.build(&params.at("unet"))?, ControlNet::new(&params.at("control"), &config)?))
    };
    let (mut index, mut at, mut largest) = (serde_json::Map::new(), 0, 0);
    for entry in keys_of(networks).expect("names only").entries() {
        let bytes = 4 * entry.shape.iter().product::<usize>();
        let place =
            serde_json::json!({"dtype": "F32", "shape": entry.shape, "data_offsets": [at, at + bytes]});
        index.insert(entry.key.clone(), place);
        (at, largest) = (at + bytes, largest.max(bytes));
    }
    let index = serde_json::to_vec(&index).expect("an index");
    let file = tempfile::Builder::new().suffix(".safetensors").tempfile().expect("a file");
    let mut writer = file.as_file();
    writer
        .write_all(&(index.len() as u64).to_le_bytes())
        .and_then(|()| writer.write_all(&index))
        .expect("room");
    writer.set_len((8 + index.len() + at) as u64).expect("room");

    // The most of all is set back to what is held now.
    std::fs::write("/proc/self/clear_refs", "5").expect("one's own process");
    let before = memory("VmRSS:").expect("Linux tells");
    let mut checkpoint = Checkpoint::open(file.path()).expect("a whole file");
    let held =
        build_in(Precision::F16, &mut checkpoint, &Device::flex(), networks).expect("right names and shapes");
    checkpoint.expect_all_used().expect("no others");
    let peak = memory("VmHWM:").expect("Linux tells") - before;
    println!(
        "{:.2} GB in the file, {:.2} GB at most, largest tensor {:.2} GB",
        at as f64 / 1e9,
        peak as f64 / 1e9,
        largest as f64 / 1e9
    );
    assert!(at > 4_800_000_000, "{at} bytes");
    assert!(peak < at / 2 + 2 * largest, "{peak} bytes for a file of {at}");
    drop(held);
}
