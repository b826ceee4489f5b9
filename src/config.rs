//! The configuration file: as written (`written`) → resolved (this module's types), every
//! error listed. Yields plain data and knows nothing of the rest of the house.

mod resolved;

pub use resolved::*;
