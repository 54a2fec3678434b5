//! Sizes of the pictures on the way of a photograph, as `restore.rs`, `stage1.rs` and `stage2.rs` make them.

use super::Job;
use super::steps::Work;
use crate::geometry::{Geometry, REFERENCE_MULTIPLE_PX};
use crate::stage1::{Way, way};
use crate::stage2::{self, Tiles};
use crate::tiling::{Cut, Joining, Pieces, Tiling};
use diffbir_imaging::Outline;
use diffbir_imaging::tiles::VaeTile;

/// Width and height in pixels.
pub(super) type Size = (usize, usize);

/// Bytes of a picture as floats.
pub(super) fn raster(size: Size) -> usize {
    12 * size.0 * size.1
}

/// The pictures of a job.
#[derive(Clone, Copy)]
pub(super) struct Pictures {
    /// The photograph.
    pub photo: Outline,
    /// What the network of stage 1 sees.
    pub input: Size,
    /// How it works on that.
    pub way: Way,
    /// What it makes of that.
    pub cleaned: Size,
    /// What stage 2 sees.
    pub seen: Size,
    /// That with its edges filled.
    pub filled: Size,
    /// The result.
    pub output: Size,
}

impl Pictures {
    pub(super) fn of(job: &Job) -> Self {
        let (config, options, geometry) = (job.config, job.options, job.config.geometry);
        let (output, _) = geometry.output_size(job.photo.width_px, job.photo.height_px, options.upscale);
        let least_px = options.least_px(geometry);
        let (scale, cleaner) = (config.stage1.upscale(), options.tiling.cleaner);
        let enlarged = |size: Size| geometry.enlarged(size, least_px);
        let multiple = |size: Size, px: usize| (size.0.next_multiple_of(px), size.1.next_multiple_of(px));
        let sized = match geometry {
            Geometry::Article => multiple(geometry.working_size(output, least_px), REFERENCE_MULTIPLE_PX),
            Geometry::Free | Geometry::Reference => output,
        };
        let (input, way) = match config.stage1.side_px() {
            Some(side) => ((side, side), Way::Whole),
            None if options.stage1 => {
                let brought = if scale > 1 { job.photo.size() } else { sized };
                way(&config.stage1, brought, enlarged(brought), cleaner)
            }
            None => (enlarged(sized), Way::Whole),
        };
        let cleaned = if options.stage1 { (input.0 * scale, input.1 * scale) } else { input };
        let seen = enlarged(sized);
        let filled = match &config.stage2 {
            Some(stage2) => multiple(seen, filled_px(geometry, &options.tiling, stage2)),
            None => seen,
        };
        let output = if options.keep_size { output } else { seen };
        Self { photo: job.photo, input, way, cleaned, seen, filled, output }
    }
}

/// What sides of the picture that is encoded are multiples of.
fn filled_px(geometry: Geometry, tiling: &Tiling, config: &crate::config::Stage2Config) -> usize {
    let cell_px = config.autoencoder.downsampling();
    let tiled = matches!(tiling.encoder, Cut::Tiles(_)) || matches!(tiling.denoiser, Cut::Tiles(_));
    match geometry {
        Geometry::Reference if tiled => cell_px,
        Geometry::Reference | Geometry::Article => REFERENCE_MULTIPLE_PX,
        Geometry::Free => cell_px * config.unet.multiple(),
    }
}

/// In what the encoder, or the decoder, works: pixels, or cells.
pub(super) fn autoencoder_work(tiling: &Tiling, filled: Size, cell_px: usize, decodes: bool) -> Work {
    let unit_px = if decodes { cell_px } else { 1 };
    let size = (filled.1 / unit_px, filled.0 / unit_px);
    let cells =
        |tiles: Vec<VaeTile>| tiles.iter().map(|tile| tile.input.width() * tile.input.height()).collect();
    match (tiling.of_autoencoder(decodes, size, cell_px), tiling.joining) {
        (Pieces::Whole, _) => Work::Whole(size.0 * size.1),
        (Pieces::Bands(rows), _) => Work::Bands { size, rows },
        (Pieces::Tiles(tiles, _), Joining::Estimated { colour_fix: false }) => Work::Apart(cells(tiles)),
        (Pieces::Tiles(tiles, _), _) => Work::Tiles(cells(tiles)),
    }
}

/// The tiles of the denoiser.
pub(super) fn denoiser_tiles(tiling: &Tiling, filled: Size, cell_px: usize) -> Option<Tiles> {
    stage2::tiles(cell_px, (filled.1 / cell_px, filled.0 / cell_px), tiling.denoiser)
}
