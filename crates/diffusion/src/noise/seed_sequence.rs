//! NumPy's SeedSequence, which turns an entropy and a place in a tree into seeds.

const INIT_A: u32 = 0x43b0_d7e5;
const MULT_A: u32 = 0x931e_8875;
const INIT_B: u32 = 0x8b51_f9dd;
const MULT_B: u32 = 0x58f3_8ded;
const MIX_LEFT: u32 = 0xca01_f9dd;
const MIX_RIGHT: u32 = 0x4973_f715;

/// A mixed pool of 32-bit words.
pub struct SeedSequence {
    pool: Vec<u32>,
}

impl SeedSequence {
    /// From an entropy and a spawn key (empty for the root), with a pool of `pool_size` words.
    pub fn new(entropy: u64, spawn_key: &[u64], pool_size: usize) -> Self {
        let mut words = words_of(entropy);
        if !spawn_key.is_empty() {
            words.resize(words.len().max(pool_size), 0);
        }
        words.extend(spawn_key.iter().flat_map(|&key| words_of(key)));
        Self::from_words(&words, pool_size)
    }

    fn from_words(words: &[u32], pool_size: usize) -> Self {
        let mut constant = INIT_A;
        let mut hash = move |value: u32| {
            let mixed = value ^ constant;
            constant = constant.wrapping_mul(MULT_A);
            let mixed = mixed.wrapping_mul(constant);
            mixed ^ (mixed >> 16)
        };
        let mut pool: Vec<u32> =
            (0..pool_size).map(|index| hash(words.get(index).copied().unwrap_or(0))).collect();
        for source in 0..pool_size {
            for target in (0..pool_size).filter(|&target| target != source) {
                pool[target] = mix(pool[target], hash(pool[source]));
            }
        }
        for &word in words.iter().skip(pool_size) {
            for entry in &mut pool {
                *entry = mix(*entry, hash(word));
            }
        }
        Self { pool }
    }

    /// `count` words of state.
    pub fn state(&self, count: usize) -> Vec<u32> {
        let mut constant = INIT_B;
        self.pool
            .iter()
            .cycle()
            .take(count)
            .map(|value| {
                let mixed = value ^ constant;
                constant = constant.wrapping_mul(MULT_B);
                let mixed = mixed.wrapping_mul(constant);
                mixed ^ (mixed >> 16)
            })
            .collect()
    }
}

fn mix(x: u32, y: u32) -> u32 {
    let mixed = x.wrapping_mul(MIX_LEFT).wrapping_sub(y.wrapping_mul(MIX_RIGHT));
    mixed ^ (mixed >> 16)
}

/// Little-endian words without leading zeros; zero is one word.
fn words_of(value: u64) -> Vec<u32> {
    if value >> 32 == 0 { vec![value as u32] } else { vec![value as u32, (value >> 32) as u32] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_those_of_numpy() {
        let words = [3_735_928_559, 195_939_070, 229_505_742, 305_419_896];
        let state = SeedSequence::from_words(&words, 4).state(4);
        assert_eq!(state, [3_914_649_087, 576_849_849, 3_593_928_901, 2_229_911_004]);
        let state = SeedSequence::new(0, &[], 4).state(4);
        assert_eq!(state, [2_968_811_710, 3_677_149_159, 745_650_761, 2_884_920_346]);
        let entropy = 5_192_648_547_598_042_289;
        assert_eq!(
            SeedSequence::new(entropy, &[], 24).state(3),
            [2_916_283_455, 3_809_269_172, 1_412_340_209]
        );
        let spawned = |key: &[u64]| SeedSequence::new(entropy, key, 24).state(4);
        assert_eq!(spawned(&[0, 0]), [3_227_533_650, 141_215_993, 278_449_630, 681_010_538]);
        assert_eq!(spawned(&[0, 1]), [991_517_257, 1_189_639_834, 656_817_212, 2_712_010_640]);
        assert_eq!(spawned(&[1, 1]), [2_414_981_146, 3_488_179_143, 1_112_194_944, 3_751_068_343]);
    }
}
