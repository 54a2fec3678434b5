//! Which latents of pictures are kept.

mod pictures;

use diffbir_imaging::Raster;
use diffbir_imaging::resize::{self, Filter};
use diffbir_models::autoencoder::Autoencoder;
use diffbir_models::taef2::Taef2Config;
use diffbir_nn::Device;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{RandomInit, build};
use diffbir_train::degrade::preset;
use diffbir_train::latents::{Kind, encode_all, open};
use diffbir_train::run::Report;
use pictures::{pictures, save_picture};

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
        let by = (&network as &dyn Autoencoder, "these");
        let mut report = |report| {
            if let Report::LeftOut { why } = report {
                left_out.push(why);
            }
        };
        let pictures = open(std::slice::from_ref(&data), side, &network, &mut report).unwrap();
        encode_all(&pictures, &cache, kind, side, by, &device, &mut report)
    };
    let enlarge = |small: &Raster, (width_px, height_px): (usize, usize)| {
        resize::float(small, width_px, height_px, Filter::Bicubic)
    };
    let truths = latents(&Kind::Truth, 1).unwrap();
    assert_eq!(truths.len(), 2);
    let recipe = preset("codeformer");
    let stage1 = |truths| Kind::Stage1 { restore: &enlarge, recipe: &recipe, truths, draw: 0 };
    assert_eq!(latents(&stage1(&truths), 1).unwrap().len(), 2);
    // One that was kept of another picture is no condition of this one.
    let error = latents(&stage1(&truths[..1]), 1).err().unwrap().to_string();
    assert!(error.contains("the latent of another picture"), "{error}");
    let error = latents(&Kind::Truth, 100).err().unwrap().to_string();
    assert!(error.contains("no picture of at least"), "{error}");
    assert!(left_out[0].contains("1.png: is not a picture"), "{left_out:?}");
    assert_eq!(left_out.len(), 1 + 3, "once, and all where none is large enough");
}

/// Networks go through a picture whole, so of a large one its middle is kept.
#[test]
fn latents_of_large_pictures_are_of_their_middle() {
    let folder = tempfile::TempDir::new().unwrap();
    let (data, cache) = (folder.path().join("data"), folder.path().join("cache"));
    std::fs::create_dir(&data).unwrap();
    // Black, but for white columns from 88 to 1111.
    let rgb = (0..1200 * 40 * 3).map(|i| if (88..1112).contains(&(i / 3 % 1200)) { 255 } else { 0 });
    save_picture(&data.join("wide.png"), (1200, 40), rgb.collect());
    let rgb = vec![255; 1024 * 32 * 3];
    save_picture(&data.join("white.png"), (1024, 32), rgb);
    let device = Device::flex();
    let mut random = RandomInit { seed: 1 };
    let (network, _) = build(&mut random, &device, |params| Taef2Config::published().build(params)).unwrap();
    let pictures = open(&[data], 1, &network, &mut |_| {}).unwrap();
    let by = (&network as &dyn Autoencoder, "these");
    encode_all(&pictures, &cache, &Kind::Truth, 1, by, &device, &mut |_| {}).unwrap();
    let kept = std::fs::read_dir(cache.join("truth")).unwrap();
    let latents: Vec<_> =
        kept.map(|entry| Checkpoint::open(&entry.unwrap().path()).unwrap().get("latent").unwrap()).collect();
    assert_eq!(latents.len(), 2);
    assert_eq!(latents[0], latents[1]);
    assert_eq!(latents[0].as_ref().unwrap().0[..2], [4, 128]);
}
