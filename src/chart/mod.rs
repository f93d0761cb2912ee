//! Pictures and pages: inline SVG and one self-contained HTML file, from numbers and names alone.
//!
//! Nothing here knows what a run is. A page loads nothing, runs no script, follows the reader's light or dark scheme, and is drawn twice where width
//! matters: once for a screen or paper, once for a phone. Sides differ by colour, dash and mark, so that colour is never needed.
//! Every text that comes in is escaped here, at the one place where it enters the page.

pub mod markup;
pub mod page;
pub mod plot;
pub mod scale;
pub mod text;
