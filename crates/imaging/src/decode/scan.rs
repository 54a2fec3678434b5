//! Whether a JPEG's scans hold all their data. The decoder fills what is missing with grey and says nothing,
//! so the codes are walked here without decoding a pixel. Scans that refine a progressive picture are not
//! walked: there a hole goes unnoticed, a missing scan does not.

use super::jpeg::segments;

/// What one component of the frame is.
struct Component {
    id: u8,
    /// Blocks of a unit across and down.
    across: usize,
    down: usize,
    /// Blocks across and down that a scan of this component by itself has.
    own_blocks: (usize, usize),
    /// For each of the 64 coefficients, the lowest bit that has come; none at all at first.
    lowest: [u8; 64],
}

struct Frame {
    progressive: bool,
    /// Units of all components across and down.
    units: usize,
    components: Vec<Component>,
}

const NOTHING: u8 = 0xff;

/// A Huffman table: codes in order of length, each length's first code and index.
#[derive(Clone, Default)]
struct Table {
    counts: [u8; 16],
    symbols: Vec<u8>,
}

/// Says what is missing of a baseline or progressive picture.
pub(super) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let mut frame = None;
    let mut tables: [[Table; 4]; 2] = Default::default();
    let mut restart = 0;
    for (marker, contents, behind) in segments(bytes) {
        match marker {
            0xc0..=0xc2 => frame = Frame::of(marker == 0xc2, contents),
            0xc4 => read_tables(contents, &mut tables).ok_or("a table is broken")?,
            0xdd => {
                let interval: &[u8; 2] = contents.first_chunk().ok_or("a segment is broken")?;
                restart = usize::from(u16::from_be_bytes(*interval));
            }
            0xda => {
                let frame = frame.as_mut().ok_or("a scan comes before the frame")?;
                frame.scan(contents, behind, &tables, restart)?;
            }
            _ => {}
        }
    }
    let frame: Frame = frame.ok_or("it has no frame")?;
    // Baseline scans bring everything at once.
    let whole = frame.components.iter().all(|component| component.lowest.iter().all(|&bit| bit == 0));
    if whole { Ok(()) } else { Err("some of its scans are missing") }
}

impl Frame {
    fn of(progressive: bool, contents: &[u8]) -> Option<Self> {
        let (&[_, rows, rows_low, columns, columns_low, count], rest) = contents.split_first_chunk()?;
        let height = usize::from(u16::from_be_bytes([rows, rows_low]));
        let width = usize::from(u16::from_be_bytes([columns, columns_low]));
        let (parts, _) = rest.as_chunks::<3>();
        let parts = parts.get(..usize::from(count))?;
        let factors = |sampling: u8| (usize::from(sampling >> 4).max(1), usize::from(sampling & 15).max(1));
        let most_across = parts.iter().map(|part| factors(part[1]).0).max()?;
        let most_down = parts.iter().map(|part| factors(part[1]).1).max()?;
        let components = parts
            .iter()
            .map(|&[id, sampling, _]| {
                let (across, down) = factors(sampling);
                let own_blocks = (
                    (width * across).div_ceil(most_across).div_ceil(8),
                    (height * down).div_ceil(most_down).div_ceil(8),
                );
                Component { id, across, down, own_blocks, lowest: [NOTHING; 64] }
            })
            .collect();
        let units = width.div_ceil(8 * most_across) * height.div_ceil(8 * most_down);
        Some(Self { progressive, units, components })
    }

    /// Walks one scan and notes what it brings.
    fn scan(
        &mut self,
        header: &[u8],
        data: &[u8],
        tables: &[[Table; 4]; 2],
        restart: usize,
    ) -> Result<(), &'static str> {
        const BROKEN: &str = "the start of a scan is broken";
        let (&count, rest) = header.split_first().ok_or(BROKEN)?;
        let (parts, _) = rest.as_chunks::<2>();
        let parts = parts.get(..usize::from(count)).ok_or(BROKEN)?;
        let tail = rest.get(2 * parts.len()..).and_then(|tail| tail.first_chunk::<3>());
        let &[first, last, bits] = tail.ok_or(BROKEN)?;
        let (first, last) = if self.progressive { (first, last.min(63)) } else { (0, 63) };
        let (high, low) = if self.progressive { (bits >> 4, bits & 15) } else { (0, 0) };
        // For each block of a unit: its two tables.
        let mut blocks = Vec::new();
        let mut units = self.units;
        for &[id, which] in parts {
            let component = self.components.iter_mut().find(|part| part.id == id).ok_or(BROKEN)?;
            component.lowest.get_mut(usize::from(first)..=usize::from(last)).ok_or(BROKEN)?.fill(low);
            let pair = (&tables[0][usize::from(which >> 4 & 3)], &tables[1][usize::from(which & 3)]);
            let alone = parts.len() == 1;
            if alone {
                units = component.own_blocks.0 * component.own_blocks.1;
            }
            blocks.extend(vec![pair; if alone { 1 } else { component.across * component.down }]);
        }
        if high > 0 {
            return Ok(());
        }
        let mut walk = Walk { data, at: 0, held: 0, bits: 0, skip: 0 };
        for unit in 0..units {
            if restart > 0 && unit > 0 && unit % restart == 0 {
                walk.restart()?;
            }
            for &(direct, other) in &blocks {
                walk.block(direct, other, first, last, self.progressive)?;
            }
        }
        Ok(())
    }
}

fn read_tables(mut contents: &[u8], tables: &mut [[Table; 4]; 2]) -> Option<()> {
    while let Some((&[which], rest)) = contents.split_first_chunk::<1>() {
        let (counts, rest) = rest.split_first_chunk::<16>()?;
        let total = counts.iter().map(|&count| usize::from(count)).sum();
        let (symbols, rest) = rest.split_at_checked(total)?;
        let place = tables.get_mut(usize::from(which >> 4))?.get_mut(usize::from(which & 15))?;
        *place = Table { counts: *counts, symbols: symbols.to_vec() };
        contents = rest;
    }
    Some(())
}

/// A place in the data of a scan.
struct Walk<'a> {
    data: &'a [u8],
    at: usize,
    held: u32,
    bits: u32,
    /// Blocks still to come that hold nothing.
    skip: u32,
}

const ENDS: &str = "the data of a scan ends before the picture does";

impl Walk<'_> {
    /// So many bits, 16 at most.
    fn take(&mut self, count: u32) -> Result<u32, &'static str> {
        while self.bits < count {
            let byte = *self.data.get(self.at).ok_or(ENDS)?;
            self.at += 1;
            if byte == 0xff {
                // A zero follows data, anything else is a marker.
                if self.data.get(self.at) != Some(&0) {
                    return Err(ENDS);
                }
                self.at += 1;
            }
            self.held = self.held << 8 | u32::from(byte);
            self.bits += 8;
        }
        self.bits -= count;
        Ok(self.held >> self.bits & ((1 << count) - 1))
    }

    fn symbol(&mut self, table: &Table) -> Result<u8, &'static str> {
        let (mut code, mut first, mut index) = (0, 0, 0);
        for &count in &table.counts {
            code = code << 1 | self.take(1)?;
            let count = u32::from(count);
            if code < first + count {
                let symbol = table.symbols.get((index + code - first) as usize);
                return symbol.copied().ok_or("its data is broken");
            }
            index += count;
            first = (first + count) << 1;
        }
        Err("its data is broken")
    }

    fn block(
        &mut self,
        direct: &Table,
        other: &Table,
        first: u8,
        last: u8,
        progressive: bool,
    ) -> Result<(), &'static str> {
        if first == 0 {
            let size = self.symbol(direct)?;
            self.take(u32::from(size.min(16)))?;
            if progressive {
                return Ok(());
            }
        }
        if self.skip > 0 {
            self.skip -= 1;
            return Ok(());
        }
        let mut at = u32::from(first.max(1));
        while at <= u32::from(last) {
            let symbol = self.symbol(other)?;
            let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
            if size == 0 && run < 15 {
                // The end of this block, and of a run of blocks behind it.
                self.skip = if progressive { (1 << run) - 1 + self.take(run)? } else { 0 };
                break;
            }
            self.take(size)?;
            at += run + 1;
        }
        Ok(())
    }

    /// Goes over the marker that ends an interval.
    fn restart(&mut self) -> Result<(), &'static str> {
        (self.bits, self.skip) = (0, 0);
        // Some writers pad with bytes of ones.
        while self.data.get(self.at) == Some(&0xff) && self.data.get(self.at + 1) == Some(&0xff) {
            self.at += 1;
        }
        match self.data.get(self.at..self.at + 2) {
            Some(&[0xff, 0xd0..=0xd7]) => self.at += 2,
            _ => return Err(ENDS),
        }
        Ok(())
    }
}
