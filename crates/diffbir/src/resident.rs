//! Networks that stay in memory, or are read each time that they are used.

use diffbir_nn::checkpoint::Checkpoint;
use diffbir_nn::params::{Precision, build_in, keys_of};
use diffbir_nn::{Device, Params, WeightError};
use std::ops::Deref;

/// A network.
pub(crate) enum Resident<N> {
    /// In memory.
    Kept(N),
    /// At rest: read for each use, in this precision, and dropped after it.
    Apart(Precision, Box<dyn Fn(Precision) -> Result<N, WeightError> + Send + Sync>),
}

/// A network in use.
pub(crate) enum Lent<'a, N> {
    /// One that stays.
    Kept(&'a N),
    /// One that goes with its use.
    Own(Box<N>),
}

impl<N> Resident<N> {
    /// The network of these tensors, all of which it must use. Where it is `apart`, names and shapes alone are looked at
    /// now.
    pub(crate) fn new(
        tensors: Checkpoint,
        (precision, device, apart): (Precision, &Device, bool),
        network: impl Fn(&Params) -> Result<N, WeightError> + Send + Sync + 'static,
    ) -> Result<Self, WeightError> {
        if apart {
            tensors.expect(&keys_of(&network)?)?;
        }
        let device = device.clone();
        let read = move |precision| {
            let mut tensors = tensors.clone();
            let network = build_in(precision, &mut tensors, &device, &network)?;
            tensors.expect_all_used()?;
            Ok(network)
        };
        Ok(if apart { Self::Apart(precision, Box::new(read)) } else { Self::Kept(read(precision)?) })
    }

    /// The same in another form.
    pub(crate) fn map<M>(self, form: impl Fn(N) -> M + Send + Sync + 'static) -> Resident<M>
    where
        N: 'static,
    {
        match self {
            Self::Kept(network) => Resident::Kept(form(network)),
            Self::Apart(precision, read) => {
                Resident::Apart(precision, Box::new(move |precision| read(precision).map(&form)))
            }
        }
    }

    /// For a use.
    pub(crate) fn lend(&self) -> Result<Lent<'_, N>, WeightError> {
        Ok(match self {
            Self::Kept(network) => Lent::Kept(network),
            Self::Apart(precision, read) => Lent::Own(Box::new(read(*precision)?)),
        })
    }

    /// Of one at rest: from now on in this precision, and in memory unless `apart`.
    pub(crate) fn hold(&mut self, precision: Precision, apart: bool) -> Result<(), WeightError> {
        if let Self::Apart(own, read) = self {
            *own = precision;
            if !apart {
                *self = Self::Kept(read(precision)?);
            }
        }
        Ok(())
    }
}

impl<N> Deref for Lent<'_, N> {
    type Target = N;

    fn deref(&self) -> &N {
        match self {
            Self::Kept(network) => network,
            Self::Own(network) => network,
        }
    }
}
