//! Trainers on pictures made here: they learn, and a run that was stopped goes on bit for bit.

use diffbir_imaging::Raster;
use diffbir_imaging::resize::{self, Filter};
use diffbir_imaging::{Encoded, Format, Metadata, Samples, write_atomic};
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::taef2::Taef2Config;
use diffbir_nn::Device;
use diffbir_nn::params::{RandomInit, build};
use diffbir_train::latents::{Kind, encode_all};
use diffbir_train::optimizer::AdamWConfig;
use diffbir_train::run::{Report, RunConfig};
use diffbir_train::stage1;
use std::path::{Path, PathBuf};

fn pictures(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    for number in 0..3usize {
        let rgb: Vec<u8> = (0..48 * 48)
            .flat_map(|i| {
                let (x, y) = (i % 48, i / 48);
                [x * 5, y * 5, (x / (4 + number) + y / 6) % 2 * 200].map(|v| v as u8)
            })
            .collect();
        let bytes = Encoded {
            width_px: 48,
            height_px: 48,
            channels: 3,
            samples: &Samples::U8(rgb),
            alpha: None,
            metadata: &Metadata::default(),
        }
        .to_bytes(Format::Png, None)
        .unwrap();
        write_atomic(&folder.join(format!("{number}.png")), &bytes).unwrap();
    }
}

fn config(out: &Path, steps: u64) -> RunConfig {
    RunConfig {
        out: out.to_path_buf(),
        steps,
        batch: 2,
        rate: 2e-3,
        warm_up: 2,
        seed: 4,
        checkpoint_every: 2,
        init: None,
        optimizer: AdamWConfig::default(),
    }
}

fn train(network: &Stage1Config, config: &RunConfig, data: &Path) -> Vec<f64> {
    let mut losses = Vec::new();
    let folders: [PathBuf; 1] = [data.to_path_buf()];
    stage1::train(network, config, &folders, &folders, 32, &Device::flex(), &mut |report| {
        if let Report::Step { loss, .. } = report {
            losses.push(loss);
        }
    })
    .unwrap();
    losses
}

fn srvgg() -> Stage1Config {
    Stage1Config::Srvgg(SrvggConfig { features: 8, convolutions: 2, upscale: 4 })
}

#[test]
fn a_stopped_run_goes_on_bit_for_bit() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    pictures(&data);
    let (whole, parts) = (folder.path().join("whole"), folder.path().join("parts"));
    train(&srvgg(), &config(&whole, 4), &data);
    // The schedule must be that of the whole run: stop by hand after the checkpoint of step 2.
    let stopped = std::panic::catch_unwind(|| {
        let folders = [data.clone()];
        let run = config(&parts, 4);
        let _ = stage1::train(&srvgg(), &run, &folders, &folders, 32, &Device::flex(), &mut |report| {
            assert!(!matches!(report, Report::Validation { step: 2, .. }), "stop here");
        });
    });
    assert!(stopped.is_err());
    train(&srvgg(), &config(&parts, 4), &data);
    for file in ["stage1.safetensors", "stage1.state.safetensors"] {
        let read = |folder: &Path| std::fs::read(folder.join(file)).unwrap();
        assert_eq!(read(&whole), read(&parts), "{file}");
    }
}

#[test]
fn both_networks_learn() {
    let folder = tempfile::TempDir::new().unwrap();
    let data = folder.path().join("data");
    pictures(&data);
    let swinir = Stage1Config::SwinIr(SwinIrConfig {
        unshuffle: 4,
        embed: 12,
        depths: vec![2],
        heads: vec![2],
        window: 4,
        upsampling_features: 8,
        nominal_grid: 8,
        global_skip: true,
        ..SwinIrConfig::official()
    });
    for (name, network) in [("srvgg", srvgg()), ("swinir", swinir)] {
        let losses = train(&network, &config(&folder.path().join(name), 150), &data);
        assert!(losses[2] < losses[0] - 0.01, "{name}: {losses:?}");
    }
}

/// Which picture a latent is of goes by its place, so all kinds leave out the same.
#[test]
fn latents_of_all_kinds_are_of_the_same_pictures() {
    let folder = tempfile::TempDir::new().unwrap();
    let (data, cache) = (folder.path().join("data"), folder.path().join("cache"));
    pictures(&data);
    std::fs::write(data.join("1.png"), b"no picture").unwrap();
    let device = Device::flex();
    let mut random = RandomInit { seed: 1 };
    let (network, _) = build(&mut random, &device, |params| Taef2Config::published().build(params)).unwrap();
    let mut left_out = Vec::new();
    let mut latents = |kind: &Kind, side: usize| {
        encode_all(std::slice::from_ref(&data), &cache, kind, side, &network, &device, &mut |report| {
            if let Report::LeftOut { why } = report {
                left_out.push(why);
            }
        })
    };
    let enlarge =
        |small: &Raster| resize::float(small, 4 * small.width_px, 4 * small.height_px, Filter::Bicubic);
    let truths = latents(&Kind::Truth, 1).unwrap();
    assert_eq!(truths.len(), 2);
    let stage1 = |truths| Kind::Stage1 { restore: &enlarge, truths, draw: 0 };
    assert_eq!(latents(&stage1(&truths), 1).unwrap().len(), 2);
    // One that was kept of another picture is no condition of this one.
    let error = latents(&stage1(&truths[..1]), 1).err().unwrap().to_string();
    assert!(error.contains("the latent of another picture"), "{error}");
    let error = latents(&Kind::Truth, 100).err().unwrap().to_string();
    assert!(error.contains("no picture of at least"), "{error}");
    assert!(left_out[0].contains("1.png: is not a picture"), "{left_out:?}");
    assert_eq!(left_out.len(), 1 + 3, "once, and all where none is large enough");
}
