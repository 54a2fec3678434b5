//! The engine of the server: the code of `diffbir restore` behind another door.

use super::restorer::OnDevice;
use super::{controls, models, request};
use crate::args::Precision;
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

    fn plan(&self, options: &Options, (width, height): (u32, u32)) -> Result<Plan, Problem> {
        let request = request::read(options)?;
        let arguments = &request.arguments;
        let stages = choose::stages(arguments);
        if let Some(set) = catalog::set(&arguments.model) {
            models::check_present(set, request.task, stages)?;
        }
        let ((width, height), _) =
            Geometry::Free.output_size(width as usize, height as usize, arguments.upscale);
        Ok(Plan {
            results: if arguments.stage1_only { 1 } else { arguments.samples.into() },
            pixels: (width * height) as u64,
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
