//! The thread of a device: its model, kept from job to job, and what a job tells.

use super::models::without_places;
use super::preview::{Preview, jpeg_of};
use super::request;
use crate::args::{Precision, Restore};
use crate::restore::choose::{self, Chosen};
use crate::restore::picture::{Finished, Follow, Restorer};
use crate::restore::{settings, together};
use anyhow::Result;
use diffbir::catalog::{Store, Task};
use diffbir::device::DeviceChoice;
use diffbir::harm::Harm;
use diffbir::model::Stages;
use diffbir::restore::{Value, Watch};
use diffbir::{Error, Progress};
use diffbir_imaging::{DecodeError, EncodeError, Format, Photo, Raster, decode_bytes, extension_of};
use diffbir_metrics::Picture;
use diffbir_nn::Device;
use diffbir_serve::engine::{self, Encoded, Failure, Made, Options, Sent};
use diffbir_serve::problem::Problem;
use std::collections::VecDeque;
use std::ops::ControlFlow;

/// The longer side of the preview of stage 1, pixels.
const PREVIEW_PX: usize = 1024;

/// Restores on one device.
pub struct OnDevice {
    choice: DeviceChoice,
    precision: Option<Precision>,
    opened: Option<Device>,
    loaded: Option<Loaded>,
}

/// A model, and for what it was loaded.
struct Loaded {
    asked: Asked,
    stages: Stages,
    chosen: Chosen,
}

/// What of a request says which model it is: its name, another stage 1, how much noise it takes away.
type Asked = (String, Option<String>, Option<f64>, Task);

impl OnDevice {
    /// Takes the threads of this device's arithmetic for itself: its share where `devices` work side by side.
    pub fn new(choice: DeviceChoice, precision: Option<Precision>, devices: usize) -> Self {
        let threads = (rayon::current_num_threads() / devices).max(1);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).use_current_thread().build();
        // A pool of its own, which this thread belongs to until it ends: dropped, it would end all its other threads.
        // Where this thread has one already, that is the one.
        std::mem::forget(pool);
        Self { choice, precision, opened: None, loaded: None }
    }

    /// The model that a request asks for, from the last job where it is the same, and where it is.
    fn load(&mut self, arguments: &mut Restore, task: Task) -> Result<(&Chosen, Device)> {
        let device = match &self.opened {
            Some(device) => device.clone(),
            None => self.opened.insert(self.choice.open()?.device).clone(),
        };
        let stages = choose::stages(arguments);
        // What is best may change with each download.
        if arguments.model == "auto" {
            arguments.model = choose::best(task, stages).map_or("nano", |set| set.name).into();
        }
        arguments.precision = self.precision;
        let asked = (arguments.model.clone(), arguments.stage1.clone(), arguments.denoise, task);
        let kept = self.loaded.take_if(|loaded| {
            loaded.asked != asked || loaded.stages != stages && loaded.stages != Stages::All
        });
        // Two models at once may be more than the memory holds.
        drop(kept);
        if self.loaded.is_none() {
            let chosen = choose::choose(arguments, task, &device)?;
            self.loaded = Some(Loaded { asked, stages, chosen });
        }
        Ok((&self.loaded.as_ref().expect("a model was loaded").chosen, device))
    }
}

impl engine::Restorer for OnDevice {
    fn restore(
        &mut self,
        options: &Options,
        picture: Sent,
        mask: Option<Sent>,
        follow: &mut dyn engine::Follow,
    ) -> Result<(), Failure> {
        let mut request = request::read(options, mask.map(|mask| mask.name)).map_err(Failure::Told)?;
        let (bytes, photo) = decoded(picture, None)?;
        let mask = mask.map(|mask| decoded(mask, Some("--mask"))).transpose()?;
        let regions = mask.map(|(_, mask)| settings::regions(&mask));
        if let Some(view) = view_of(&bytes, &photo).map_err(failure)? {
            follow.before(&view)?;
        }
        drop(bytes);
        if follow.progress("load", 0, 0).is_break() {
            return Err(Failure::Stopped);
        }
        let (chosen, device) = self.load(&mut request.arguments, request.task).map_err(failure)?;
        let arguments = &request.arguments;
        let mut say = |text: &str| note(follow, text);
        let asked = (request.task, request.format);
        let restorer = Restorer::new((arguments, regions), asked, chosen, &device, &mut say);
        let mut restorer = restorer.map_err(failure)?;
        let samples: Vec<u64> = (0..arguments.samples.into()).collect();
        let mut follower = Follower::new(follow, request.stability);
        let restored = restorer.restore(&photo, &samples, &mut follower);
        if let Some(failed) = follower.failed {
            return Err(failed);
        }
        restored.map_err(failure)?;
        let compared: Vec<&Picture> = follower.compared.iter().flatten().collect();
        if let [_, _, ..] = compared[..] {
            let (map, mean) = together::stability(&compared).map_err(failure)?;
            follow.stability(&map, mean)?;
        }
        Ok(())
    }
}

/// Tells what is said on the command line, too, without the server's places.
fn note(follow: &mut dyn engine::Follow, text: &str) {
    match Store::of_user() {
        Some(store) => follow.note(&without_places(&text, &store)),
        None => follow.note(text),
    }
}

/// A picture that was sent: its bytes, and what they are. `flag` says which one it is where that is not clear.
fn decoded(Sent { file, name }: Sent, flag: Option<&'static str>) -> Result<(Vec<u8>, Photo), Failure> {
    let bytes = std::fs::read(file).map_err(|error| Failure::Internal(error.to_string()))?;
    let photo = decode_bytes(&bytes, name).map_err(|error| match flag {
        Some(flag) => failure(anyhow::Error::from(error).context(flag)),
        None => failure(error.into()),
    })?;
    Ok((bytes, photo))
}

/// Who may read why something failed: what is the picture's or the request's fault is told to whoever asked.
fn failure(error: anyhow::Error) -> Failure {
    if matches!(error.downcast_ref(), Some(Error::Stopped)) {
        return Failure::Stopped;
    }
    let is_told = error.is::<DecodeError>()
        || matches!(error.downcast_ref(), Some(EncodeError::Format { .. }))
        || matches!(error.downcast_ref(), Some(Error::Option(_) | Error::NotFinite(_) | Error::Device { .. }))
        // What the settings say has no cause beneath it.
        || error.chain().count() == 1 && !error.is::<Error>() && !error.is::<EncodeError>();
    if is_told {
        Failure::Told(Problem::refused(format!("{error:#}")))
    } else {
        Failure::Internal(format!("{error:#}"))
    }
}

/// Endings of files that browsers show.
const SHOWN: [&str; 4] = ["png", "jpg", "webp", "bmp"];

/// A picture as PNG, where browsers cannot show its file.
fn view_of(bytes: &[u8], photo: &Photo) -> Result<Option<Vec<u8>>> {
    if extension_of(bytes).is_some_and(|extension| SHOWN.contains(&extension)) {
        return Ok(None);
    }
    let encoded = diffbir_imaging::Encoded {
        width_px: photo.width_px,
        height_px: photo.height_px,
        channels: photo.channels,
        samples: &photo.samples,
        alpha: photo.alpha.as_ref(),
        metadata: &photo.metadata,
    };
    Ok(Some(encoded.to_bytes(Format::Png, None)?))
}

fn encoded(bytes: Vec<u8>) -> Result<Encoded> {
    let view = match extension_of(&bytes) {
        Some("tiff") => view_of(&bytes, &decode_bytes(&bytes, "the result")?)?,
        _ => None,
    };
    Ok(Encoded { bytes, view })
}

/// Passes on what the library tells.
struct Follower<'a> {
    follow: &'a mut dyn engine::Follow,
    /// The picture of stage 1, until its latent is known.
    stage1: Option<Raster>,
    preview: Option<Preview>,
    /// Steps of the sampler so far.
    steps: usize,
    /// Where the results that are to come contradict the photograph.
    harms: VecDeque<engine::Harm>,
    /// The results so far, where they are compared.
    compared: Option<Vec<Picture>>,
    /// Why a file could not be kept.
    failed: Option<Failure>,
}

impl<'a> Follower<'a> {
    fn new(follow: &'a mut dyn engine::Follow, compares: bool) -> Self {
        Self {
            follow,
            stage1: None,
            preview: None,
            steps: 0,
            harms: VecDeque::new(),
            compared: compares.then(Vec::new),
            failed: None,
        }
    }

    /// An error that carries nothing: what it is about is kept.
    fn fail(&mut self, failed: Failure) -> anyhow::Error {
        self.failed = Some(failed);
        Error::Stopped.into()
    }
}

impl Watch for Follower<'_> {
    fn progress(&mut self, Progress { stage, done, total }: Progress) -> ControlFlow<()> {
        self.follow.progress(&stage.to_string(), done, total)
    }

    fn value(&mut self, value: Value) {
        match value {
            Value::Stage1(picture) => {
                if let Some(jpeg) = jpeg_of(picture, PREVIEW_PX) {
                    self.follow.preview(0, jpeg);
                }
                self.stage1 = Some(picture.clone());
            }
            Value::Condition(latent) => {
                self.preview = self.stage1.take().and_then(|picture| Preview::fit(&picture, latent));
            }
            Value::Step { estimate, .. } => {
                self.steps += 1;
                if let Some(jpeg) = self.preview.as_ref().and_then(|preview| preview.jpeg(estimate)) {
                    self.follow.preview(self.steps, jpeg);
                }
            }
            Value::Sampled(_) | Value::Decoded(_) => {}
        }
    }
}

impl Follow for Follower<'_> {
    fn stopped(&self) -> Box<dyn Fn() -> bool + Send + Sync> {
        self.follow.stopped()
    }

    fn say(&mut self, text: &str) {
        note(self.follow, text.trim_start());
    }

    fn stage1(&mut self, _: &dyn Fn() -> Raster, encode: &dyn Fn() -> Result<Vec<u8>>) -> Result<()> {
        let kept = self.follow.stage1(&encoded(encode()?)?);
        kept.map_err(|failed| self.fail(failed))
    }

    fn faces(&mut self, found: usize, restored: usize) {
        self.follow.note(&format!("{found} faces found, {restored} of them restored"));
    }

    fn harm(&mut self, harm: &Harm, kept: bool) {
        self.harms.push_back(engine::Harm { parts: harm.parts(), harmed: harm.harmed(), kept });
    }

    fn result(&mut self, _sample: u64, Finished { picture, bytes, seed, .. }: Finished) -> Result<()> {
        let (width, height) = picture.size();
        let harm = self.harms.pop_front();
        let made = Made { seed, width, height, bytes: bytes.len() as u64, harm };
        self.compared.iter_mut().for_each(|compared| compared.push(picture.into()));
        let kept = self.follow.result(&encoded(bytes)?, made);
        kept.map_err(|failed| self.fail(failed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::time::Duration;

    #[test]
    fn a_device_has_threads_that_live() {
        let alone = || {
            OnDevice::new(DeviceChoice::Cpu, None, 1);
            // The one half waits for the other, which only another thread can do meanwhile.
            let (send, receive) = channel();
            let others = rayon::current_num_threads() > 1;
            let (heard, _) = rayon::join(
                move || !others || receive.recv_timeout(Duration::from_secs(20)).is_ok(),
                move || send.send(()),
            );
            heard
        };
        // The second is made as after a panic of the first.
        let twice = std::thread::spawn(move || alone() && alone());
        assert!(twice.join().unwrap());
        let share = |devices| {
            let of = move || {
                OnDevice::new(DeviceChoice::Cpu, None, devices);
                rayon::current_num_threads()
            };
            std::thread::spawn(of).join().unwrap()
        };
        assert_eq!((share(2), share(1000)), ((rayon::current_num_threads() / 2).max(1), 1));
    }
}
