//! The sizes of a network: those of a base by its name, and single ones in their stead.

use diffbir_models::clip::ClipTextConfig;
use diffbir_models::kl::KlConfig;
use diffbir_models::rrdb::RrdbConfig;
use diffbir_models::scunet::ScuNetConfig;
use diffbir_models::sizes::{Checked, SizeError};
use diffbir_models::srvgg::SrvggConfig;
use diffbir_models::stage1::Stage1Config;
use diffbir_models::swinir::SwinIrConfig;
use diffbir_models::taef2::Taef2Config;
use diffbir_models::unet::UnetConfig;
use serde::de::{DeserializeOwned, Error};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::{Table, Value};

/// The field that names the base.
pub(super) const BASE: &str = "base";

/// Sizes that have names.
pub trait Sizes: Checked + Clone + Serialize + DeserializeOwned {
    /// The names.
    const BASES: &'static [&'static str];

    /// The sizes of that name.
    fn of(base: &str) -> Option<Self>;

    /// The name under which `serde` keeps these sizes, for an enum.
    fn tag(&self) -> Option<&'static str> {
        None
    }
}

/// A network's base and its sizes, in TOML one table: `base = "swinir"` and what differs from it.
#[derive(Clone, Debug, PartialEq)]
pub struct Network<S> {
    /// The name of the sizes that count where no other is given.
    pub base: String,
    /// The sizes.
    pub sizes: S,
}

impl<S: Sizes> Network<S> {
    /// A base as it is.
    ///
    /// # Panics
    /// Where there is none of this name.
    pub fn of(base: &str) -> Self {
        Self { base: base.into(), sizes: S::of(base).expect("the name of a base") }
    }

    /// The first size that cannot be, of a network that lies at `place` of a configuration.
    pub(super) fn check(&self, place: &str) -> Result<(), SizeError> {
        self.sizes.check().map_err(|error| error.within(place))
    }

    fn table_of(sizes: &S) -> Table {
        let table = Table::try_from(sizes).expect("sizes are numbers and texts");
        match sizes.tag() {
            None => table,
            Some(tag) => match &table[tag] {
                Value::Table(inner) => inner.clone(),
                _ => unreachable!("sizes are a table"),
            },
        }
    }
}

impl<S: Sizes> Serialize for Network<S> {
    fn serialize<Z: Serializer>(&self, serializer: Z) -> Result<Z::Ok, Z::Error> {
        let mut table = Self::table_of(&self.sizes);
        table.insert(BASE.into(), self.base.clone().into());
        table.serialize(serializer)
    }
}

impl<'de, S: Sizes> Deserialize<'de> for Network<S> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut given = Table::deserialize(deserializer)?;
        let bases = S::BASES.join(", ");
        let base = given.remove(BASE).ok_or_else(|| D::Error::custom(format!("lacks `base`: {bases}")))?;
        let of_base = base.as_str().and_then(S::of);
        let (Value::String(base), Some(sizes)) = (&base, of_base) else {
            return Err(D::Error::custom(format!("there is no base {base}; there are {bases}")));
        };
        let mut table = Self::table_of(&sizes);
        for (name, value) in given {
            if !table.contains_key(&name) {
                let names = table.keys().cloned().collect::<Vec<_>>().join(", ");
                return Err(D::Error::custom(format!("{base} has no field `{name}`; it has {names}")));
            }
            table.insert(name, value);
        }
        let whole = match sizes.tag() {
            None => Value::Table(table),
            Some(tag) => Value::Table(Table::from_iter([(tag.to_string(), Value::Table(table))])),
        };
        let sizes = whole.try_into().map_err(|error| D::Error::custom(format!("{base}: {error}")))?;
        Ok(Self { base: base.clone(), sizes })
    }
}

impl Sizes for Stage1Config {
    const BASES: &'static [&'static str] = &["srvgg", "swinir", "swinir-official", "rrdb", "scunet"];

    fn of(base: &str) -> Option<Self> {
        Some(match base {
            "srvgg" => Self::Srvgg(SrvggConfig::general_x4v3()),
            // 2.2 M parameters.
            "swinir" => Self::SwinIr(SwinIrConfig {
                embed: 96,
                depths: vec![4; 4],
                heads: vec![6; 4],
                upsampling_features: 32,
                nominal_grid: 16,
                global_skip: true,
                ..SwinIrConfig::official()
            }),
            "swinir-official" => Self::SwinIr(SwinIrConfig::official()),
            "rrdb" => Self::Rrdb(RrdbConfig::official()),
            "scunet" => Self::ScuNet(ScuNetConfig::official()),
            _ => return None,
        })
    }

    fn tag(&self) -> Option<&'static str> {
        Some(match self {
            Self::SwinIr(_) => "swinir",
            Self::Srvgg(_) => "srvgg",
            Self::Rrdb(_) => "rrdb",
            Self::ScuNet(_) => "scunet",
            Self::Gfpgan(_) => "gfpgan",
        })
    }
}

impl Sizes for UnetConfig {
    const BASES: &'static [&'static str] = &["nano", "sd2.1"];

    fn of(base: &str) -> Option<Self> {
        match base {
            "nano" => Some(Self::nano()),
            "sd2.1" => Some(Self::official()),
            _ => None,
        }
    }
}

impl Sizes for ClipTextConfig {
    const BASES: &'static [&'static str] = &["sd2.1"];

    fn of(base: &str) -> Option<Self> {
        (base == "sd2.1").then(Self::official)
    }
}

impl Sizes for KlConfig {
    const BASES: &'static [&'static str] = &["kl-f8", "kl-f4"];

    fn of(base: &str) -> Option<Self> {
        match base {
            "kl-f8" => Some(Self::official()),
            // Latent Diffusion's f4 (arXiv 2112.10752). Its scale is one over the deviation of its latents.
            "kl-f4" => {
                Some(Self { multipliers: vec![1, 2, 4], latent_channels: 3, scale: 1.0, ..Self::official() })
            }
            _ => None,
        }
    }
}

/// An autoencoder that is used and not trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AutoencoderSizes {
    /// Of FLUX.2's latent, small.
    Taef2(Taef2Config),
    /// Stable Diffusion's.
    Kl(KlConfig),
}

impl Checked for AutoencoderSizes {
    fn check(&self) -> Result<(), SizeError> {
        match self {
            Self::Taef2(sizes) => sizes.check(),
            Self::Kl(sizes) => sizes.check(),
        }
    }
}

impl Sizes for AutoencoderSizes {
    const BASES: &'static [&'static str] = &["taef2", "kl-f8", "kl-f4"];

    fn of(base: &str) -> Option<Self> {
        match base {
            "taef2" => Some(Self::Taef2(Taef2Config::published())),
            _ => KlConfig::of(base).map(Self::Kl),
        }
    }

    fn tag(&self) -> Option<&'static str> {
        Some(match self {
            Self::Taef2(_) => "taef2",
            Self::Kl(_) => "kl",
        })
    }
}
