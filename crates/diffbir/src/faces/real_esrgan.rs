//! The background as v1's program for faces has it made by Real-ESRGAN, its mistakes included.

use super::as_opencv;
use crate::error::Error;
use crate::geometry::{Geometry, resize_8_bit};
use crate::model::Model;
use crate::restore::{Options, Progress, Watch};
use crate::tiling::Tiling;
use diffbir_imaging::opencv::Kernel;
use diffbir_imaging::resize::Filter;
use diffbir_imaging::{Photo, Raster};
use std::ops::ControlFlow;

/// The program's tiles, and how far they reach beyond what is kept of them, in pixels of the network's input.
const TILE_PX: usize = 400;
const AROUND_PX: usize = 40;

/// What becomes of `padded`, the photograph as the model of v1 gets it, edges filled, at the size of that. It is reduced again by the
/// factor by which it was to be enlarged, height and width changed for each other; goes through the network red as blue; and is
/// stretched back.
pub(super) fn background(
    engine: &Model,
    padded: &Raster,
    (photo, options): (&Photo, &Options),
    watch: &mut dyn Watch,
) -> Result<Raster, Error> {
    let (_, upscale) = Geometry::Article.output_size(photo.width_px, photo.height_px, options.upscale);
    let reduced = |px: usize| ((px as f64 / upscale) as usize).max(1);
    let size = (reduced(padded.height_px), reduced(padded.width_px));
    let mut input = resize_8_bit(padded, size, Filter::Lanczos);
    swap_red_and_blue(&mut input);
    let mut enlarged = in_tiles(engine, &input, options, watch)?;
    swap_red_and_blue(&mut enlarged);
    let (width, height) = enlarged.size();
    let mut picture = Raster::from_u8(width, height, 3, &enlarged.to_u8_rounding());
    if upscale != engine.config.stage1.upscale() as f64 {
        let side = |px: usize| ((px as f64 * upscale) as usize).max(1);
        picture = as_opencv(&picture, (side(size.0), side(size.1)), None, Kernel::Lanczos);
    }
    Ok(as_opencv(&picture, padded.size(), None, Kernel::Lanczos))
}

/// The network on tiles that are laid side by side, cut off at black and white.
fn in_tiles(
    engine: &Model,
    picture: &Raster,
    options: &Options,
    watch: &mut dyn Watch,
) -> Result<Raster, Error> {
    let (width, height) = picture.size();
    let stage1 = &engine.config.stage1;
    let scale = stage1.upscale();
    let picture = reflected(picture, stage1.multiple_px());
    let (across, down) = (picture.width_px.div_ceil(TILE_PX), picture.height_px.div_ceil(TILE_PX));
    let mut out = Raster::new(picture.width_px * scale, picture.height_px * scale, 3);
    let options = Options {
        upscale: scale as f64,
        stage1: true,
        tiling: Tiling::WHOLE,
        image_size_px: None,
        keep_size: true,
        ..options.clone()
    };
    for tile in 0..across * down {
        // From where to where the tile goes, and what the network sees of it.
        let span = |index: usize, length: usize| {
            let (start, end) = (index * TILE_PX, ((index + 1) * TILE_PX).min(length));
            (start, end, start.saturating_sub(AROUND_PX), (end + AROUND_PX).min(length))
        };
        let (left, right, seen_left, seen_right) = span(tile % across, picture.width_px);
        let (top, bottom, seen_top, seen_bottom) = span(tile / across, picture.height_px);
        let seen = picture.crop(seen_left, seen_top, seen_right - seen_left, seen_bottom - seen_top);
        let mut of_all = OfAll { watch, tile, tiles: across * down };
        let seen = engine.prepare(&Photo::of_raster(&seen), &options, false, &mut of_all)?.clean();
        let (x, y) = ((left - seen_left) * scale, (top - seen_top) * scale);
        let kept = seen.crop(x, y, (right - left) * scale, (bottom - top) * scale);
        out.paste(&kept, left * scale, top * scale);
    }
    Ok(out.crop(0, 0, width * scale, height * scale))
}

/// The progress of one tile as that of all.
struct OfAll<'a> {
    watch: &'a mut dyn Watch,
    tile: usize,
    tiles: usize,
}

impl Watch for OfAll<'_> {
    fn progress(&mut self, Progress { stage, done, total }: Progress) -> ControlFlow<()> {
        let (done, total) = (self.tile * total + done, self.tiles * total);
        self.watch.progress(Progress { stage, done, total })
    }
}

/// Up to multiples by what lies before the edge, the edge not repeated.
fn reflected(picture: &Raster, multiple_px: usize) -> Raster {
    let mut out = picture.repeat_end(multiple_px);
    let (width, height) = picture.size();
    let from =
        |at: usize, length: usize| if at < length { at } else { (2 * (length - 1)).saturating_sub(at) };
    for y in 0..out.height_px {
        for x in 0..out.width_px {
            if x >= width || y >= height {
                let source = (from(y, height) * width + from(x, width)) * 3;
                let to = (y * out.width_px + x) * 3;
                out.data[to..to + 3].copy_from_slice(&picture.data[source..source + 3]);
            }
        }
    }
    out
}

fn swap_red_and_blue(picture: &mut Raster) {
    picture.data.chunks_exact_mut(3).for_each(|pixel| pixel.swap(0, 2));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_reflected_up_to_a_multiple() {
        let values = [1., 2., 3., 4., 5., 6., 7., 8., 9.].map(|value| [value; 3]);
        let picture = Raster { width_px: 3, height_px: 3, channels: 3, data: values.concat() };
        let out = reflected(&picture, 2);
        let first: Vec<f32> = out.data.iter().step_by(3).copied().collect();
        assert_eq!(first, [1., 2., 3., 2., 4., 5., 6., 5., 7., 8., 9., 8., 4., 5., 6., 5.]);
        // What is one pixel wide is repeated.
        let line = Raster { width_px: 1, height_px: 1, channels: 3, data: vec![7.0; 3] };
        assert_eq!(reflected(&line, 2).data, vec![7.0; 12]);
    }
}
