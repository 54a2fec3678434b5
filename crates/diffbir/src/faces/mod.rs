//! Faces in photographs: found, aligned, restored by themselves and laid back into the restored picture (reference 3.8).

mod align;
mod detect;
mod onnx;
mod parts;
mod paste;
mod real_esrgan;

pub use align::SIDE_PX;
pub use detect::{Detector, Face};
pub use parts::Parser;

use crate::Model;
use crate::config::ModelConfig;
use crate::error::{Error, Stage};
use crate::geometry::{Geometry, SHORT_SIDE_PX};
use crate::restore::{Options, Prepared, Watch, report};
use align::alignment;
use diffbir_imaging::opencv::{self, Kernel};
use diffbir_imaging::resize::Filter;
use diffbir_imaging::warp::{Outside, warp};
use diffbir_imaging::{Photo, Raster, Similarity};
use diffbir_models::stage1::Stage1Config;
use paste::{Placed, paste};

pub(crate) use detect::{expect as expect_detector, expect_retinaface};

/// Whose way is followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// Faces are looked for in the photograph as it is and cut from it as it is; where the picture ends, its edge is
    /// repeated.
    #[default]
    Own,
    /// The reference's, its mistakes included: faces are looked for in the enlarged photograph, red and blue swapped,
    /// and those are left out whose eyes are level by wrong columns.
    Reference,
}

/// Which faces of a picture are restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Which {
    /// All.
    #[default]
    All,
    /// The one whose middle is nearest to that of the picture.
    Centre,
    /// The one that covers most of the picture.
    Largest,
}

/// What is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rules {
    /// Which of the faces.
    pub which: Which,
    /// The shorter side of a face's box at least, in pixels of the photograph.
    pub least_px: f32,
    /// Whose way is followed.
    pub manner: Manner,
}

/// The networks that find faces and lay them back.
pub struct Finder {
    /// What finds them.
    pub detector: Detector,
    /// What tells a face from what is around it; without it, faces are laid back with feathered edges.
    pub parser: Option<Parser>,
}

/// The faces of a photograph.
pub struct Scene {
    /// What faces are cut from.
    picture: Raster,
    /// Those that are to be restored.
    faces: Vec<Aligned>,
    /// How many were found, those included that are left as they are.
    pub found: usize,
    /// Of what faces are laid into, in pixels.
    size: (usize, usize),
    /// What becomes of that, where it is not the result.
    way_back: Option<WayBack>,
    manner: Manner,
}

/// From a picture with filled edges, in which v1 looks for faces and into which it lays them, to its result.
#[derive(Clone, Copy)]
struct WayBack {
    /// The picture without its edges.
    inner: (usize, usize),
    /// The result.
    size: (usize, usize),
}

struct Aligned {
    face: Face,
    /// From the pixels of the picture to those of the aligned face.
    to_face: Similarity,
}

/// The least side of a face that is cut at its own size, in pixels.
const LEAST_CUT_PX: f64 = 64.0;

/// The largest side of a face that is restored by a network that takes any size, in pixels.
const MOST_RESTORED_PX: f64 = 1024.0;

/// Around faces that reach out of the picture, as the reference has it.
const GREY: Outside = Outside::Colour([135.0 / 255.0, 133.0 / 255.0, 132.0 / 255.0]);

impl Finder {
    /// The faces of a photograph whose result, by `geometry`, is `upscale` times as large. In the reference's manner with
    /// v1's geometry the background that they are laid into has the size at which its networks work
    /// ([`Options::keep_size`](crate::Options::keep_size) off).
    pub fn look(
        &self,
        photo: &Photo,
        geometry: Geometry,
        upscale: f64,
        rules: Rules,
        watch: &mut dyn Watch,
    ) -> Result<Scene, Error> {
        report(watch, Stage::Detect, 0, 1)?;
        let (mut size, _) = geometry.output_size(photo.width_px, photo.height_px, upscale);
        let mut way_back = None;
        let picture = match (rules.manner, geometry) {
            (Manner::Own, _) => photo.to_raster(),
            (Manner::Reference, Geometry::Article) => {
                way_back = Some(WayBack { inner: geometry.working_size(size, SHORT_SIDE_PX), size });
                geometry.resized(photo, size, SHORT_SIDE_PX)
            }
            (Manner::Reference, _) => working(photo, size),
        };
        if rules.manner == Manner::Reference {
            size = picture.size();
        }
        let mut faces = self.detector.find(&picture, rules.manner)?;
        let found = faces.len();
        // Faces are measured in the picture that they are looked for in.
        let (width, _) = way_back.map_or(picture.size(), |way_back| way_back.inner);
        let least_px = rules.least_px * width as f32 / photo.width_px as f32;
        faces.retain(|face| is_wanted(face, Rules { least_px, ..rules }));
        let faces = chosen(faces, rules.which, picture.size());
        report(watch, Stage::Detect, 1, 1)?;
        Ok(Scene { found, way_back, ..Scene::new(picture, faces, size, rules.manner) })
    }
}

/// The photograph as the reference looks for faces in it: at the size of the result, or larger.
fn working(photo: &Photo, (width, height): (usize, usize)) -> Raster {
    let picture = photo.resized(width, height, Filter::Bicubic);
    let short = width.min(height);
    if short >= SHORT_SIDE_PX {
        return picture;
    }
    let factor = SHORT_SIDE_PX as f64 / short as f64;
    let side = |px: usize| (px as f64 * factor).round_ties_even() as usize;
    as_opencv(&picture, (side(width), side(height)), Some(1.0 / factor), Kernel::Bilinear)
}

/// A picture cut off to 8 bits and resized by OpenCV's arithmetic.
fn as_opencv(picture: &Raster, size: (usize, usize), scale: Option<f64>, kernel: Kernel) -> Raster {
    let pixels = opencv::resize(&picture.to_u8_truncating(), picture.size(), 3, size, scale, kernel);
    Raster::from_u8(size.0, size.1, 3, &pixels)
}

fn is_wanted(face: &Face, rules: Rules) -> bool {
    const LEAST_EYES_PX: f32 = 5.0;
    let (width, height) = face.size();
    match rules.manner {
        Manner::Own => width.min(height) >= rules.least_px,
        Manner::Reference => {
            // Meant as the distance of the eyes.
            let [[_, left_y], [right_x, right_y], [nose_x, _], ..] = face.landmarks;
            (left_y - right_y).hypot(right_x - nose_x) >= LEAST_EYES_PX && width.min(height) >= rules.least_px
        }
    }
}

/// Of the faces of a picture of this size those that are wanted.
fn chosen(faces: Vec<Face>, which: Which, (width, height): (usize, usize)) -> Vec<Face> {
    let (width, height) = (width as f32, height as f32);
    let best = |cost: &dyn Fn(&Face) -> f32| {
        faces.iter().copied().min_by(|a, b| cost(a).total_cmp(&cost(b))).into_iter().collect()
    };
    match which {
        Which::All => faces,
        Which::Centre => best(&|face| {
            let (x, y) = face.centre();
            (x - width / 2.0).hypot(y - height / 2.0)
        }),
        Which::Largest => best(&|face| {
            let [left, top, right, bottom] = face.bounds;
            let (across, down) = (
                right.clamp(0.0, width) - left.clamp(0.0, width),
                bottom.clamp(0.0, height) - top.clamp(0.0, height),
            );
            -across * down
        }),
    }
}

impl Scene {
    /// Of a picture, in sRGB, whose faces are known, and whose result has this size.
    pub fn new(picture: Raster, faces: Vec<Face>, size: (usize, usize), manner: Manner) -> Self {
        let found = faces.len();
        let align = |face: Face| Some(Aligned { to_face: alignment(&face)?, face });
        Self {
            picture,
            faces: faces.into_iter().filter_map(align).collect(),
            found,
            size,
            way_back: None,
            manner,
        }
    }

    /// How many faces are to be restored.
    pub fn count(&self) -> usize {
        self.faces.len()
    }

    /// The box and landmarks of each, in pixels of the photograph, or of the enlarged one in the reference's manner.
    pub fn faces(&self) -> impl Iterator<Item = &Face> {
        self.faces.iter().map(|aligned| &aligned.face)
    }

    /// A face, upright, as `model` wants it, and how many times larger it is to be restored: one of the reference's
    /// networks gets and gives 512 pixels, one that takes any size gets it at its own size.
    pub fn cut(&self, index: usize, model: &ModelConfig) -> (Photo, f64) {
        let to_face = self.faces[index].to_face;
        let (side, upscale) = match (model.geometry, model.stage1.side_px()) {
            (Geometry::Reference | Geometry::Article, _) | (_, Some(_)) => (SIDE_PX as f64, 1.0),
            (Geometry::Free, None) => {
                let own = (SIDE_PX as f64 / to_face.scale()).round().max(LEAST_CUT_PX);
                let wanted = own * self.enlarging();
                let restored = wanted.clamp(SIDE_PX as f64, MOST_RESTORED_PX);
                let cut = own.min(restored);
                (cut, restored / cut)
            }
        };
        let to_cut = to_face.then(Similarity::resizing(side / SIDE_PX as f64));
        let (outside, smooth) = match self.manner {
            Manner::Own => (Outside::Edge, true),
            Manner::Reference => (GREY, false),
        };
        let size = (side as usize, side as usize);
        (Photo::of_raster(&warp(&self.picture, to_cut.inverse(), size, outside, smooth)), upscale)
    }

    /// How many times larger the result is than what faces are cut from.
    fn enlarging(&self) -> f64 {
        self.size.0 as f64 / self.picture.width_px as f64
    }

    /// The first half of the background, of the photograph that the scene is of: what `model` makes of it, or, where v1's
    /// program for faces has it made by Real-ESRGAN's network, what that program does.
    pub fn prepare(
        &self,
        model: &Model,
        photo: &Photo,
        options: &Options,
        stage2: bool,
        watch: &mut dyn Watch,
    ) -> Result<Prepared, Error> {
        match (self.way_back, &model.config.stage1, &model.config.stage2) {
            (Some(way_back), Stage1Config::Rrdb(_), None) => {
                let background = real_esrgan::background(model, &self.picture, (photo, options), watch)?;
                let (width, height) = way_back.inner;
                let alpha = photo.resized_alpha(way_back.size.0, way_back.size.1, Filter::Bicubic);
                Ok(Prepared::done(background.crop(0, 0, width, height), alpha))
            }
            _ => model.prepare(photo, options, stage2, watch),
        }
    }

    /// The restored background with the restored faces, as many as there are, in their order.
    pub fn paste(
        &self,
        background: Raster,
        faces: &[&Raster],
        parser: Option<&Parser>,
        watch: &mut dyn Watch,
    ) -> Result<Raster, Error> {
        let mut picture = match self.manner {
            Manner::Own => background,
            // Also at its own size, which OpenCV leaves as it is.
            Manner::Reference => {
                let inner = self.way_back.map_or(self.size, |way_back| way_back.inner);
                let mut picture = Raster::new(self.size.0, self.size.1, 3);
                picture.paste(&as_opencv(&background, inner, None, Kernel::Lanczos), 0, 0);
                picture.data.iter_mut().for_each(|value| *value = (*value * 255.0).round());
                picture
            }
        };
        let to_photo = Similarity::resizing(self.enlarging()).inverse();
        let places: Vec<Similarity> =
            self.faces.iter().map(|aligned| to_photo.then(aligned.to_face)).collect();
        for (done, (face, &to_face)) in faces.iter().zip(&places).enumerate() {
            report(watch, Stage::Paste, done, faces.len())?;
            let (width, height) = face.size();
            let face = &match self.manner {
                Manner::Own => {
                    let data = face.data.iter().map(|value| value.clamp(0.0, 1.0)).collect();
                    Raster { width_px: width, height_px: height, channels: 3, data }
                }
                Manner::Reference => Raster::from_u8(width, height, 3, &face.to_u8_truncating()),
            };
            let parts = parser.map(|parser| parser.mask(face, self.manner)).transpose()?;
            paste(&mut picture, &Placed { face, to_face, parts }, &places, self.manner);
        }
        if !faces.is_empty() {
            report(watch, Stage::Paste, faces.len(), faces.len())?;
        }
        if self.manner == Manner::Reference {
            let levels: Vec<u8> = picture.data.iter().map(|&level| level as u8).collect();
            picture = Raster::from_u8(self.size.0, self.size.1, 3, &levels);
        }
        Ok(match self.way_back {
            Some(WayBack { inner, size }) => Geometry::Article.finished(&picture, inner, size),
            None => picture,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::Progress;
    use diffbir_imaging::resize;
    use std::ops::ControlFlow;

    fn face(bounds: [f32; 4]) -> Face {
        let [left, top, right, bottom] = bounds;
        let at = |x: f32, y: f32| [left + x * (right - left), top + y * (bottom - top)];
        let landmarks = [at(0.3, 0.4), at(0.7, 0.4), at(0.5, 0.6), at(0.35, 0.8), at(0.65, 0.8)];
        Face { bounds, score: 0.9, landmarks }
    }

    #[test]
    fn the_largest_and_the_one_in_the_middle_are_chosen() {
        // The first is larger, but little of it is in the picture.
        let faces = vec![
            face([-90.0, 0.0, 10.0, 100.0]),
            face([150.0, 10.0, 190.0, 60.0]),
            face([80.0, 80.0, 110.0, 115.0]),
        ];
        let picked = |which| chosen(faces.clone(), which, (200, 200));
        assert_eq!(picked(Which::All), faces);
        assert_eq!(picked(Which::Centre), [faces[2]]);
        assert_eq!(picked(Which::Largest), [faces[1]]);
        assert!(chosen(Vec::new(), Which::Largest, (200, 200)).is_empty());
    }

    #[test]
    fn small_faces_are_left_and_the_references_filter_reads_other_columns() {
        let rules = |least_px, manner| Rules { least_px, manner, ..Rules::default() };
        let small = face([0.0, 0.0, 20.0, 24.0]);
        assert!(is_wanted(&small, rules(20.0, Manner::Own)) && !is_wanted(&small, rules(21.0, Manner::Own)));
        // Eyes 8 pixels apart on one level, the nose between them.
        assert!(!is_wanted(&small, rules(0.0, Manner::Reference)));
        assert!(is_wanted(&face([0.0, 0.0, 40.0, 48.0]), rules(0.0, Manner::Reference)));
    }

    fn scene(faces: Vec<Face>, enlarging: usize) -> Scene {
        let mut picture = Raster::new(200, 160, 3);
        for (index, value) in picture.data.iter_mut().enumerate() {
            *value = 0.5 + 0.4 * ((index / 3 % 200) as f32 / 15.0).sin();
        }
        Scene::new(picture, faces, (200 * enlarging, 160 * enlarging), Manner::Own)
    }

    #[test]
    fn faces_that_nobody_changed_leave_the_picture_as_it_was() {
        let scene = scene(vec![face([60.0, 40.0, 120.0, 110.0]), face([150.0, 90.0, 210.0, 170.0])], 2);
        let background = resize::float(&scene.picture, 400, 320, Filter::Bilinear);
        let config = crate::catalog::set("v2").unwrap().config(crate::catalog::Task::Face);
        let cut: Vec<Raster> =
            (0..scene.count()).map(|index| scene.cut(index, &config).0.to_raster()).collect();
        assert!(cut.iter().all(|face| face.size() == (SIDE_PX, SIDE_PX)));
        let mut quiet = |_: Progress| ControlFlow::Continue(());
        let pasted =
            scene.paste(background.clone(), &cut.iter().collect::<Vec<_>>(), None, &mut quiet).unwrap();
        let differs = pasted.data.iter().zip(&background.data).map(|(a, b)| (a - b).abs());
        assert!(differs.fold(0.0, f32::max) < 0.02);
    }

    #[test]
    fn networks_for_any_size_get_faces_at_their_own() {
        let config = ModelConfig {
            geometry: Geometry::Free,
            ..crate::catalog::set("v2").unwrap().config(crate::catalog::Task::Sr)
        };
        let large = scene(vec![face([20.0, 10.0, 120.0, 130.0])], 4);
        let (cut, upscale) = large.cut(0, &config);
        let side = cut.width_px as f64;
        assert!((100.0..400.0).contains(&side), "{side}");
        assert!((side * upscale).round() >= 512.0 && (side * upscale).round() <= 1024.0);
        let tiny = scene(vec![face([20.0, 10.0, 30.0, 22.0])], 2);
        let (cut, upscale) = tiny.cut(0, &config);
        assert_eq!((cut.width_px, (cut.width_px as f64 * upscale).round()), (64, 512.0));
    }
}
