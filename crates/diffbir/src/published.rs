//! Stage-1 networks as their authors publish them: files that carry no description, known by their tensors.

use crate::ModelConfig;
use crate::geometry::Geometry;
use diffbir_models::gfpgan::GfpganConfig;
use diffbir_models::rrdb::{RrdbConfig, RrdbNames};
use diffbir_models::scunet::ScuNetConfig;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_nn::WeightError;
use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::keys_of;

/// A network that several files may hold.
struct Published {
    name: &'static str,
    /// Files that hold it.
    origin: &'static str,
    sizes: Stage1Config,
    geometry: Geometry,
}

fn all() -> [Published; 11] {
    let srvgg = |convolutions| SrvggConfig { convolutions, ..SrvggConfig::general_x4v3() };
    let rrdb = |names| RrdbConfig { names, ..RrdbConfig::official() };
    let of_diffbir = |name, origin, sizes| Published { name, origin, sizes, geometry: Geometry::Reference };
    let others = |name, origin, sizes| Published { name, origin, sizes, geometry: Geometry::Free };
    [
        of_diffbir("swinir", "SwinIR, a stage 1 of DiffBIR", Stage1Config::SwinIr(SwinIrConfig::official())),
        of_diffbir("scunet", "SCUNet, for denoising", Stage1Config::ScuNet(ScuNetConfig::official())),
        others("rrdbnet", "RRDBNet x4, in the names of BSRNet", Stage1Config::Rrdb(rrdb(RrdbNames::Esrgan))),
        others(
            "rrdbnet",
            "RRDBNet x4, in the names of Real-ESRGAN",
            Stage1Config::Rrdb(rrdb(RrdbNames::BasicSr)),
        ),
        others(
            "rrdbnet",
            "RRDBNet x4 of six blocks, as Real-ESRGAN x4plus_anime_6B has it",
            Stage1Config::Rrdb(RrdbConfig { blocks: 6, ..rrdb(RrdbNames::BasicSr) }),
        ),
        others(
            "rrdbnet",
            "RRDBNet x2, in the names of Real-ESRGAN",
            Stage1Config::Rrdb(RrdbConfig { upscale: 2, ..rrdb(RrdbNames::BasicSr) }),
        ),
        others(
            "rrdbnet",
            "RRDBNet x2, in the names of BSRNet",
            Stage1Config::Rrdb(RrdbConfig { upscale: 2, ..rrdb(RrdbNames::Esrgan) }),
        ),
        others(
            "rrdbnet",
            "RRDBNet x2 with one convolution that enlarges, as BSRGANx2 has it",
            Stage1Config::Rrdb(RrdbConfig { upscale: 2, plain: true, ..rrdb(RrdbNames::Esrgan) }),
        ),
        others(
            "srvggnetcompact",
            "SRVGGNetCompact, as Real-ESRGAN general-x4v3 has it",
            Stage1Config::Srvgg(srvgg(32)),
        ),
        others(
            "srvggnetcompact",
            "SRVGGNetCompact, as Real-ESRGAN animevideov3 has it",
            Stage1Config::Srvgg(srvgg(16)),
        ),
        others("gfpgan", "GFPGAN, for aligned faces", Stage1Config::Gfpgan(GfpganConfig::official())),
    ]
}

/// The model, of a stage 1 alone, that these tensors are by their names and shapes.
///
/// # Errors
/// When they are those of no network: what is wrong with them for one that shares many of its names with them, if there
/// is one.
pub(crate) fn stage1_of(file: &Checkpoint) -> Result<ModelConfig, Option<WeightError>> {
    let mut closest = None;
    for Published { name, origin, sizes, geometry } in all() {
        let Ok(keys) = keys_of(|params| sizes.build(params)) else { continue };
        let Err(error) = file.expect(&keys) else {
            return Ok(ModelConfig {
                name: name.into(),
                origin: vec![origin.into()],
                stage1: sizes,
                stage2: None,
                geometry,
            });
        };
        let count = keys.parameters().count();
        let shared = keys.parameters().filter(|(_, key, _)| file.contains(key)).count();
        let fitting = keys.parameters().filter(|(_, key, shape)| file.shape_of(key) == Some(*shape)).count();
        // A larger network has the names of a smaller one, and more that are missing.
        let likeness = 2 * fitting as i64 - count as i64;
        if 4 * shared > count && closest.as_ref().is_none_or(|(most, _)| likeness > *most) {
            closest = Some((likeness, error));
        }
    }
    Err(closest.map(|(_, error)| error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    #[test]
    fn every_network_is_told_from_the_others() {
        for network in all() {
            let keys = keys_of(|params| network.sizes.build(params)).unwrap();
            // Values do not matter, and zeros that nobody looks at cost nothing but time.
            let tensors = keys.entries().iter().filter(|entry| entry.is_read()).map(|entry| {
                let count = entry.shape.iter().product();
                (entry.key.clone(), TensorData::new(vec![0f32; count], entry.shape.clone()))
            });
            let found = stage1_of(&Checkpoint::from_tensors(tensors.collect())).unwrap();
            assert_eq!((found.origin[0].as_str(), found.stage1), (network.origin, network.sizes));
        }
        assert!(matches!(stage1_of(&Checkpoint::default()), Err(None)));
    }

    #[test]
    fn what_is_wrong_with_a_network_is_told() {
        let network = Stage1Config::Srvgg(SrvggConfig::general_x4v3());
        let keys = keys_of(|params| network.build(params)).unwrap();
        let tensors = keys.entries().iter().filter(|entry| entry.key != "body.3.weight").map(|entry| {
            let count = entry.shape.iter().product();
            (entry.key.clone(), TensorData::new(vec![0f32; count], entry.shape.clone()))
        });
        let file = Checkpoint::from_tensors(tensors.collect()).named("a.pth");
        let told = stage1_of(&file).unwrap_err().unwrap().to_string();
        assert!(told.starts_with("a.pth: lacks the tensor `body.3.weight`"), "{told}");
        // Each is compared with itself and not with another that has its names.
        for network in all() {
            let keys = keys_of(|params| network.sizes.build(params)).unwrap();
            let lost = keys.parameters().last().unwrap().1.to_string();
            let tensors =
                keys.entries().iter().filter(|entry| entry.is_read() && entry.key != lost).map(|entry| {
                    (
                        entry.key.clone(),
                        TensorData::new(vec![0f32; entry.shape.iter().product()], entry.shape.clone()),
                    )
                });
            let file = Checkpoint::from_tensors(tensors.collect());
            let told = stage1_of(&file).unwrap_err().unwrap().to_string();
            assert!(told.contains(&format!("lacks the tensor `{lost}`")), "{}: {told}", network.origin);
        }
    }
}
