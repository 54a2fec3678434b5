//! The engine of the server: the code of `diffbir restore` behind another door.

use super::restorer::OnDevice;
use super::{controls, models, request};
use crate::args::{KeepSize, Precision};
use crate::restore::choose;
use anyhow::Result;
use diffbir::catalog;
use diffbir::device::DeviceChoice;
use diffbir::geometry::Geometry;
use diffbir_serve::engine::{Controls, Engine, Model, Options, Plan, Pull, Restorer};
use diffbir_serve::problem::Problem;
use std::ops::ControlFlow;

/// Restores for a server.
pub struct Restoring {
    devices: Vec<DeviceChoice>,
    precision: Option<Precision>,
}

impl Restoring {
    /// On these devices, each of which must start.
    pub fn new(devices: &[DeviceChoice], precision: Option<Precision>) -> Result<Self> {
        for device in devices {
            device.open()?;
        }
        Ok(Self { devices: devices.to_vec(), precision })
    }
}

impl Engine for Restoring {
    fn controls(&self) -> Controls {
        controls::all()
    }

    fn plan(
        &self,
        options: &Options,
        (width, height): (u32, u32),
        mask: Option<&str>,
    ) -> Result<Plan, Problem> {
        let request = request::read(options, mask)?;
        let arguments = &request.arguments;
        let stages = choose::stages(arguments);
        models::check_present(arguments, request.task)?;
        let (size, _) = Geometry::Free.output_size(width as usize, height as usize, arguments.upscale);
        let enlarges = match arguments.model.as_str() {
            // Which model that is is settled when the job begins.
            "auto" => choose::best(request.task, stages).is_some(),
            name => catalog::set(name).is_some(),
        };
        let (width, height) = match arguments.keep_original_size {
            KeepSize::No if enlarges => working_size(size, arguments.image_size),
            _ => size,
        };
        let seen = if enlarges { working_size(size, arguments.image_size) } else { size };
        Ok(Plan {
            results: if arguments.stage1_only { 1 } else { arguments.samples.into() },
            pixels: (width * height) as u64,
            working_pixels: (seen.0 as u64).saturating_mul(seen.1 as u64),
            extension: request.format.extension(),
            command: request.flags,
            options: request.options,
        })
    }

    fn devices(&self) -> usize {
        self.devices.len()
    }

    fn restorer(&self, device: usize) -> Box<dyn Restorer> {
        Box::new(OnDevice::new(self.devices[device], self.precision, self.devices.len()))
    }

    fn models(&self) -> Vec<Model> {
        models::list()
    }

    fn pull(&self, model: &str, watch: &mut dyn FnMut(Pull) -> ControlFlow<()>) -> Result<(), Problem> {
        models::pull(model, watch)
    }
}

/// The size at which an official model sees a picture of this size: long thin ones become large.
fn working_size((width, height): (usize, usize), image_size_px: Option<u16>) -> (usize, usize) {
    let least_px = image_size_px.map_or(512.0, f64::from);
    let larger = (least_px / width.min(height) as f64).max(1.0);
    ((width as f64 * larger).ceil() as usize, (height as f64 * larger).ceil() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thin_picture_is_large_for_an_official_model() {
        assert_eq!(working_size((20_000, 1), None), (10_240_000, 512));
        assert_eq!(working_size((300, 200), Some(256)), (384, 256));
        assert_eq!(working_size((3000, 2000), Some(256)), (3000, 2000));
    }
}
