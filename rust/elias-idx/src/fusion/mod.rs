//! What is known of a query beside its embedding.

#[cfg_attr(not(test), expect(dead_code, reason = "votes are for the index"))]
pub(crate) mod neighbours;
