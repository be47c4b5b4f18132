//! Giving an index other sizes to search with.

use super::finish;
use crate::arguments::check_positive;
use crate::error::Result;
use crate::format::manifest::Defaults;
use crate::index::Index;

impl Index {
    /// The same index with other sizes that a search uses unless told otherwise, in memory; None leaves one as it is.
    /// All tensors are shared with this index.
    ///
    /// # Errors
    /// [`crate::Error::Argument`] for a size of 0, and for `num_candidates` where the index takes no sparse features.
    pub fn with_defaults(
        &self,
        beam_size: Option<usize>,
        shortlist_size: Option<usize>,
        num_candidates: Option<usize>,
    ) -> Result<Self> {
        let own = self.defaults();
        let defaults = Defaults {
            alpha: own.alpha,
            beam_size: beam_size.unwrap_or(own.beam_size),
            shortlist_size: shortlist_size.unwrap_or(own.shortlist_size),
        };
        defaults.check()?;
        let mut sizes = self.fusion.as_ref().map(|fusion| fusion.sizes.clone());
        if let Some(count) = num_candidates {
            check_positive("num_candidates", count)?;
            self.fusion_or_error()?;
            sizes.iter_mut().for_each(|sizes| sizes.num_candidates = count);
        }
        finish(self.copy_without(&[])?, self.dims(), defaults, sizes, self.dtype())
    }
}
