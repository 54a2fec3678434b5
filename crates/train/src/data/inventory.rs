//! By what one set of pictures is told from another.

use std::fmt::{self, Display};
use std::str::FromStr;

/// How many pictures a set has, and a sum over their names and sizes in their order. Where they lie is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Pictures.
    pub count: u64,
    sum: u64,
}

impl Inventory {
    /// Of pictures by path and size of their file in bytes.
    pub(super) fn of(pictures: impl Iterator<Item = (String, u64)>) -> Self {
        let (mut count, mut sum) = (0, 0xcbf2_9ce4_8422_2325u64);
        for (path, bytes) in pictures {
            count += 1;
            let name = path.rsplit(['/', '\\']).next().unwrap_or(&path);
            for byte in name.bytes().chain(bytes.to_le_bytes()) {
                sum = (sum ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
            }
        }
        Self { count, sum }
    }

    /// How it was before it became `now`, in words.
    pub(crate) fn against(&self, now: &Self) -> String {
        match self.count == now.count {
            true => format!("there were {} pictures with other names or sizes", self.count),
            false => format!("there were {} pictures", self.count),
        }
    }
}

/// As a checkpoint keeps it.
impl Display for Inventory {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} {:016x}", self.count, self.sum)
    }
}

impl FromStr for Inventory {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (count, sum) = text.split_once(' ').ok_or(())?;
        let (count, sum) = (count.parse().map_err(drop)?, u64::from_str_radix(sum, 16).map_err(drop)?);
        Ok(Self { count, sum })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sizes_and_order_count_and_places_do_not() {
        let of = |pictures: &[(&str, u64)]| {
            Inventory::of(pictures.iter().map(|(path, bytes)| (path.to_string(), *bytes)))
        };
        let set = of(&[("a/1.png", 10), ("a/2.png", 20)]);
        assert_eq!(set, of(&[("elsewhere/1.png", 10), ("2.png", 20)]));
        assert_eq!(set.to_string().parse(), Ok(set));
        for other in [
            of(&[("1.png", 10)]),
            of(&[("1.png", 10), ("2.png", 21)]),
            of(&[("1.png", 10), ("3.png", 20)]),
            of(&[("2.png", 20), ("1.png", 10)]),
        ] {
            assert_ne!(set, other);
        }
        assert!("24".parse::<Inventory>().is_err() && "x 0".parse::<Inventory>().is_err());
    }
}
