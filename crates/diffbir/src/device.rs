//! The devices that networks run on.

use crate::Error;
use burn::tensor::Device;
use std::str::FromStr;

/// A device as a person asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best hardware device of this build that starts.
    Auto,
    /// The processor.
    Cpu,
    /// The graphics card of this number through Vulkan.
    Vulkan(usize),
    /// The graphics card of this number through Metal.
    Metal(usize),
    /// The NVIDIA card of this number by what this build has for it, CUDA before Vulkan, else the processor.
    Cuda(usize),
    /// The reference's `mps`: Apple's graphics, else the processor.
    Mps,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (kind, number) = text.split_once(':').unwrap_or((text, "0"));
        let index = number.parse().map_err(|_| format!("`{number}` is not the number of a device"));
        match kind {
            "auto" if kind == text => Ok(Self::Auto),
            "cpu" if kind == text => Ok(Self::Cpu),
            "mps" if kind == text => Ok(Self::Mps),
            "cuda" => Ok(Self::Cuda(index?)),
            "vulkan" => Ok(Self::Vulkan(index?)),
            "metal" => Ok(Self::Metal(index?)),
            _ => Err(format!("no device `{text}`: there are auto, cpu, cuda[:N], vulkan[:N] and metal[:N]")),
        }
    }
}

/// A device that was started.
pub struct Opened {
    /// The device.
    pub device: Device,
    /// `cpu`, `cuda:0`, `vulkan:0`, `metal:0`, ...
    pub name: String,
    /// Why it is another one than was asked for, where the reference's words leave that open.
    pub instead: Option<String>,
}

impl DeviceChoice {
    /// Starts the device.
    pub fn open(self) -> Result<Opened, Error> {
        #[cfg(any(feature = "gpu", feature = "cuda"))]
        keep_what_is_compiled();
        self.started()
    }

    fn started(self) -> Result<Opened, Error> {
        match self {
            Self::Cpu => Ok(processor()),
            Self::Auto => Ok(cuda(0).or_else(|| hardware(None, 0)).unwrap_or_else(processor)),
            Self::Cuda(index) => {
                Ok(cuda(index).or_else(|| nvidia(index)).unwrap_or_else(|| instead_of("NVIDIA card")))
            }
            Self::Mps => Ok(hardware(Some("metal"), 0).unwrap_or_else(|| instead_of("Metal device"))),
            Self::Vulkan(index) => graphics("vulkan", index),
            Self::Metal(index) => graphics("metal", index),
        }
    }
}

/// Compiled kernels are kept in `diffbir/kernels` of the user's cache.
#[cfg(any(feature = "gpu", feature = "cuda"))]
fn keep_what_is_compiled() {
    use cubecl::config::cache::CacheConfig;
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig};
    let mut config = CubeClRuntimeConfig::default();
    if let Some(cache) = dirs::cache_dir() {
        config.compilation.cache = true;
        config.environment.path = CacheConfig::Directory(cache.join("diffbir").join("kernels"));
    }
    // Only the first call of a process changes something.
    CubeClRuntimeConfig::try_set(config.override_from_env());
}

/// Among so many cards a maker's is looked for.
#[cfg(feature = "gpu")]
const MOST_CARDS: usize = 16;

fn processor() -> Opened {
    Opened { device: Device::flex(), name: "cpu".into(), instead: None }
}

fn instead_of(wanted: &str) -> Opened {
    let why =
        if cfg!(any(feature = "gpu", feature = "cuda")) { "starts here" } else { "is known to this build" };
    Opened { instead: Some(format!("no {wanted} {why}: on the CPU instead")), ..processor() }
}

fn graphics(kind: &'static str, index: usize) -> Result<Opened, Error> {
    if cfg!(not(feature = "gpu")) {
        return Err(Error::Option(format!(
            "this build knows no {kind}: build it with `cargo build --release --features gpu`, or use --device cpu"
        )));
    }
    hardware(Some(kind), index)
        .ok_or_else(|| Error::Option(format!("there is no {kind} device {index} here: try --device cpu")))
}

/// The hardware device of this kind (any if none) and number, if this build has it and it starts.
#[cfg(feature = "gpu")]
fn hardware(kind: Option<&str>, index: usize) -> Option<Opened> {
    use burn::tensor::DeviceKind;
    let kinds = [DeviceKind::DiscreteGpu(index), DeviceKind::IntegratedGpu(index)];
    let name = if cfg!(target_os = "macos") { "metal" } else { "vulkan" };
    if kind.is_some_and(|kind| kind != name) {
        return None;
    }
    kinds.into_iter().find_map(|kind| {
        // A driver that is not there makes the library panic, not fail.
        std::panic::catch_unwind(|| {
            let device = if name == "metal" { Device::metal(kind) } else { Device::vulkan(kind) };
            device.sync().ok()?;
            Some(Opened { device, name: format!("{name}:{index}"), instead: None })
        })
        .ok()
        .flatten()
    })
}

/// The NVIDIA card of this number through CUDA, if this build has it and the card runs something.
#[cfg(feature = "cuda")]
fn cuda(index: usize) -> Option<Opened> {
    use burn::tensor::{DeviceType, Tensor};
    // A compiler of kernels that is not there makes the library panic, not fail.
    std::panic::catch_unwind(|| {
        let device = Device::enumerate(DeviceType::Cuda).into_iter().nth(index)?;
        let three = (Tensor::<1>::ones([1], &device) + 2.0).try_into_data().ok()?;
        let runs = three.iter::<f32>().eq([3.0]);
        runs.then(|| Opened { device, name: format!("cuda:{index}"), instead: None })
    })
    .ok()
    .flatten()
}

/// The NVIDIA card of this number that this build reaches otherwise, among those of other makers.
#[cfg(feature = "gpu")]
fn nvidia(index: usize) -> Option<Opened> {
    use burn::tensor::PciVendor;
    let is_nvidia = |device: &Device| {
        let card = device.identity().and_then(|identity| identity.physical);
        card.is_some_and(|card| card.vendor == Some(PciVendor::Nvidia))
    };
    (0..MOST_CARDS)
        .map_while(|index| hardware(Some("vulkan"), index))
        .filter(|opened| is_nvidia(&opened.device))
        .nth(index)
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> Option<Opened> {
    None
}

#[cfg(not(feature = "gpu"))]
fn nvidia(_: usize) -> Option<Opened> {
    None
}

#[cfg(not(feature = "gpu"))]
fn hardware(_: Option<&str>, _: usize) -> Option<Opened> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        assert_eq!("vulkan:1".parse(), Ok(DeviceChoice::Vulkan(1)));
        assert_eq!("cpu".parse(), Ok(DeviceChoice::Cpu));
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:1".parse(), Ok(DeviceChoice::Cuda(1)));
        assert!("cuda:".parse::<DeviceChoice>().is_err());
        assert!("vulkan:x".parse::<DeviceChoice>().is_err());
        assert!("cpu:0".parse::<DeviceChoice>().is_err());
    }
}
