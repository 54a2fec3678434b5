//! In which order pictures come: each once, in an order of its own for each time through the set, without a list of
//! it in memory.

use crate::degrade::generator;
use rand::Rng;

/// The picture of example `number` of a run, counted from 0 over all its steps.
pub(super) fn picture(seed: u64, number: u64, pictures: usize) -> usize {
    let count = pictures as u64;
    let (round, place) = (number / count, number % count);
    let mut random = generator(seed, &format!("order/{round}"));
    let keys: [u64; ROUNDS] = random.random();
    // A permutation of the numbers of some bits; those beyond the set are sent on until they are within.
    let half_bits = (u64::BITS - (count - 1).leading_zeros()).div_ceil(2).max(1);
    let mut place = permute(place, half_bits, &keys);
    while place >= count {
        place = permute(place, half_bits, &keys);
    }
    place as usize
}

/// Of the Feistel network.
const ROUNDS: usize = 4;

/// A permutation of the numbers of `2 · half_bits` bits.
fn permute(number: u64, half_bits: u32, keys: &[u64; ROUNDS]) -> u64 {
    let mask = (1 << half_bits) - 1;
    let (mut left, mut right) = (number >> half_bits, number & mask);
    for key in keys {
        // SplitMix64's mixing.
        let mut mixed = right ^ key;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (left, right) = (right, left ^ (mixed & mask));
    }
    left << half_bits | right
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_picture_comes_once_a_round_and_rounds_differ() {
        for count in [1, 2, 3, 17, 64, 1000] {
            let round = |round: u64| -> Vec<usize> {
                (0..count as u64).map(|place| picture(5, round * count as u64 + place, count)).collect()
            };
            for number in 0..4 {
                let mut sorted = round(number);
                sorted.sort_unstable();
                assert_eq!(sorted, (0..count).collect::<Vec<_>>());
            }
            if count > 16 {
                assert_ne!(round(0), round(1));
                assert_ne!(
                    round(0),
                    (0..count).map(|place| picture(6, place as u64, count)).collect::<Vec<_>>()
                );
            }
        }
    }

    /// Which picture comes first is as likely for each.
    #[test]
    fn places_are_even() {
        let mut counts = [0usize; 10];
        for seed in 0..4000 {
            counts[picture(seed, 3, 10)] += 1;
        }
        assert!(counts.iter().all(|count| (310..490).contains(count)), "{counts:?}");
    }
}
