//! The scan of panels with AMX: products of 16 queries with 16 rows, 64 columns at a time.
//!
//! Nothing is packed for it. Sixteen groups of a panel are a tile as they lie; 64 codes of sixteen queries
//! are one whose rows lie as far apart as the queries.

use std::arch::asm;
use std::arch::x86_64::{__cpuid_count, _xgetbv};

use super::int8::panel_logits;
use super::x86_64::avx512;
use crate::panels::{GROUP, PANEL_ROWS, PanelsView};
use crate::query_codes::QueryCodesSlice;

/// Rows of a tile: as many queries, or groups of a panel.
const TILE_ROWS: usize = 16;
/// Bytes of a tile's row.
const TILE_COLS: usize = 64;
const TILE_LEN: usize = TILE_ROWS * TILE_COLS;
const _: () = assert!(TILE_COLS == TILE_ROWS * GROUP && TILE_COLS == PANEL_ROWS * GROUP);

/// Panels that the tiles of the queries are loaded for at once.
const TILE_PANELS: usize = 2;

/// Whether the machine multiplies tiles of bytes and the system lets this process do so. Linux wants to be
/// asked, once for all threads and for the processes forked later.
#[target_feature(enable = "avx512f,xsave")]
pub(super) fn is_available() -> bool {
    const AMX_TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    const TILE_CONFIG_AND_DATA: u64 = 1 << 17 | 1 << TILE_DATA;
    const TILE_DATA: u32 = 18;
    const ARCH_REQ_XCOMP_PERM: u32 = 0x1023;

    // Newer compilers take the call for safe.
    #[allow(unused_unsafe)]
    // SAFETY: AVX-512 is itself found in this leaf.
    let features = unsafe { __cpuid_count(7, 0) }.edx;
    // SAFETY: the function has the instruction.
    let saved = unsafe { _xgetbv(0) };
    features & AMX_TILE_AND_INT8 == AMX_TILE_AND_INT8
        && saved & TILE_CONFIG_AND_DATA == TILE_CONFIG_AND_DATA
        // SAFETY: the call takes two numbers and changes nothing but what the process may do.
        && unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) } == 0
}

/// See [`super::Kernels::scan_panels`], which checks the lengths. Needs AMX for bytes too, which the
/// compiler has no stable name for.
///
/// # Safety
/// [`is_available`] must have said so.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn scan_panels(
    panels: PanelsView<'_>,
    (first, end): (usize, usize),
    queries: QueryCodesSlice<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let split =
        if queries.len() < TILE_ROWS { first } else { readable_panels(panels).clamp(first, end) };
    if first < split {
        // SAFETY: the caller promises AMX; there are sixteen queries and enough codes.
        unsafe { scan_tiles(panels, (first, split), queries, out, stride) };
    }
    let out = &mut out[(split - first) * PANEL_ROWS..];
    avx512::scan_panels(panels, (split, end), queries, out, stride);
}

/// How many panels can be read in whole tiles. The last tile reaches into the next panel, whose codes are
/// multiplied with the zeros that the queries' codes end in; from the last panels it would reach too far.
fn readable_panels(panels: PanelsView<'_>) -> usize {
    let len = panels.panel_len();
    let rest = panels.codes.len().checked_sub(len.next_multiple_of(TILE_LEN));
    rest.map_or(0, |rest| rest / len + 1)
}

/// The logits of panels `first` to `end`, exclusive, of which there is one at least.
///
/// # Safety
/// [`is_available`] must have said that there is AMX, and `end` be at most [`readable_panels`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn scan_tiles(
    panels: PanelsView<'_>,
    (first, end): (usize, usize),
    queries: QueryCodesSlice<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let len = panels.panel_len();
    let tiles = len.div_ceil(TILE_LEN);
    assert!(queries.stride() >= tiles * TILE_COLS && queries.len() >= TILE_ROWS);
    // SAFETY: the caller promises AMX.
    let _configured = unsafe { Configured::new() };
    let mut sums = Sums([[[[0; PANEL_ROWS]; TILE_ROWS]; TILE_PANELS]; 2]);
    for panel in (first..end).step_by(TILE_PANELS) {
        // A panel that is left over is taken twice, and so are some queries before a rest of less than
        // sixteen: the results are the same again.
        let pair = [panel, (panel + 1).min(end - 1)];
        let codes = [&panels.codes[pair[0] * len..], &panels.codes[pair[1] * len..]];
        for query in (0..queries.len()).step_by(TILE_ROWS) {
            let query = query.min(queries.len() - TILE_ROWS);
            let sixteen = queries.range(query..query + TILE_ROWS);
            // SAFETY: the tiles are configured; the panels can be read in whole tiles, and the queries have
            // as many codes each.
            unsafe { multiply(sixteen, codes, tiles, &mut sums) };
            let [high, low] = &sums.0;
            for p in 0..TILE_PANELS {
                let place = (pair[p] - first) * PANEL_ROWS;
                for q in 0..TILE_ROWS {
                    let meta = sixteen.get(q).meta;
                    let logits = panel_logits([&high[p][q], &low[p][q]], 0, meta, panels, pair[p]);
                    out[(query + q) * stride + place..][..PANEL_ROWS].copy_from_slice(&logits);
                }
            }
        }
    }
}

/// The products of the high and of the low parts of queries with the rows of panels: \[2, panels, queries,
/// rows\].
#[repr(C, align(64))]
struct Sums([[[[i32; PANEL_ROWS]; TILE_ROWS]; TILE_PANELS]; 2]);

/// Multiplies sixteen queries with the first `tiles` tiles of each panel.
///
/// # Safety
/// Tiles must be [`Configured`], there must be sixteen queries with `tiles` · 64 codes each, and
/// `tiles` · 1024 codes from the start of each panel on.
#[inline(always)]
unsafe fn multiply(
    queries: QueryCodesSlice<'_>,
    panels: [&[i8]; TILE_PANELS],
    tiles: usize,
    sums: &mut Sums,
) {
    // SAFETY: all loads are of codes as promised, and the stores fill `sums`.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{high} + {stride}]",
            "tileloadd tmm6, [{left} + {row}]",
            "tdpbssd tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{right} + {row}]",
            "tdpbssd tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{low} + {stride}]",
            "tdpbssd tmm2, tmm5, tmm6",
            "tdpbssd tmm3, tmm5, tmm7",
            "add {high}, {row}",
            "add {low}, {row}",
            "add {left}, {tile}",
            "add {right}, {tile}",
            "dec {tiles}",
            "jnz 2b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + {tile}], tmm1",
            "tilestored [{sums} + {row} + 2 * {tile}], tmm2",
            "tilestored [{sums} + {row} + 3 * {tile}], tmm3",
            high = inout(reg) queries.high().as_ptr() => _,
            low = inout(reg) queries.low().as_ptr() => _,
            left = inout(reg) panels[0].as_ptr() => _,
            right = inout(reg) panels[1].as_ptr() => _,
            tiles = inout(reg) tiles => _,
            stride = in(reg) queries.stride(),
            row = in(reg) TILE_COLS,
            sums = in(reg) sums.0.as_mut_ptr(),
            tile = const TILE_LEN,
            out("tmm0") _,
            out("tmm1") _,
            out("tmm2") _,
            out("tmm3") _,
            out("tmm4") _,
            out("tmm5") _,
            out("tmm6") _,
            out("tmm7") _,
            options(nostack),
        );
    }
}

/// Eight tiles of this thread, all of sixteen rows of 64 bytes, as long as this lives. After that nothing
/// is left for the system to save.
struct Configured;

impl Configured {
    /// # Safety
    /// [`is_available`] must have said that there is AMX.
    unsafe fn new() -> Self {
        #[repr(C, align(64))]
        struct Config {
            palette: u8,
            start_row: u8,
            reserved: [u8; 14],
            row_bytes: [u16; 16],
            rows: [u8; 16],
        }
        let mut config = Config {
            palette: 1,
            start_row: 0,
            reserved: [0; 14],
            row_bytes: [0; 16],
            rows: [0; 16],
        };
        config.row_bytes[..8].fill(TILE_COLS as u16);
        config.rows[..8].fill(TILE_ROWS as u8);
        // SAFETY: the caller promises AMX; the 64 bytes are a configuration that all machines have.
        unsafe {
            asm!("ldtilecfg [{}]", in(reg) &raw const config, options(nostack, preserves_flags, readonly));
        }
        Self
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: there is AMX, or there would be nothing to drop.
        unsafe { asm!("tilerelease", options(nomem, nostack, preserves_flags)) };
    }
}
