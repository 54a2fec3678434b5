//! Stage-1 networks as their authors publish them: files that carry no description, known by their tensors.

use crate::ModelConfig;
use crate::geometry::Geometry;
use diffbir_models::rrdb::{RrdbConfig, RrdbNames};
use diffbir_models::scunet::ScuNetConfig;
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
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

fn all() -> [Published; 6] {
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
            "srvggnetcompact",
            "SRVGGNetCompact, as Real-ESRGAN general-x4v3 has it",
            Stage1Config::Srvgg(srvgg(32)),
        ),
        others(
            "srvggnetcompact",
            "SRVGGNetCompact, as Real-ESRGAN animevideov3 has it",
            Stage1Config::Srvgg(srvgg(16)),
        ),
    ]
}

/// The model, of a stage 1 alone, that these tensors are by their names and shapes.
pub(crate) fn stage1_of(file: &Checkpoint) -> Option<ModelConfig> {
    let is_it = |network: &Published| {
        keys_of(|params| network.sizes.build(params)).is_ok_and(|keys| file.expect(&keys).is_ok())
    };
    let Published { name, origin, sizes, geometry } = all().into_iter().find(is_it)?;
    Some(ModelConfig {
        name: name.into(),
        origin: vec![origin.into()],
        stage1: sizes,
        stage2: None,
        geometry,
    })
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
        assert_eq!(stage1_of(&Checkpoint::default()), None);
    }
}
