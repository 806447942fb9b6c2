//! A picture of one case.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

use crate::report::{Row, median};

const WIDTH: u32 = 900;
const ROW: u32 = 26;
const EDGES: u32 = 110;

/// Bars: for every contestant one for each number of flows.
pub fn bars(file: &Path, title: &str, flows: &[u32], rows: &[&Row]) -> Result<()> {
    let height = EDGES + ROW * (rows.len() * flows.len()) as u32;
    let area = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let most = rows
        .iter()
        .flat_map(|row| &row.ns)
        .map(|ns| median(ns))
        .fold(0.0, f64::max);
    let total = (rows.len() * flows.len()) as f64;
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(110)
        .build_cartesian_2d(0.0..most * 1.12, total..0.0)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .disable_y_axis()
        .x_desc("nanoseconds a packet, median")
        .draw()?;
    for (nth, row) in rows.iter().enumerate() {
        for (of, (ns, flows)) in row.ns.iter().zip(flows).enumerate() {
            let top = (nth * row.ns.len() + of) as f64;
            let ns = median(ns);
            let color = Palette99::pick(of).mix(if row.name.starts_with("uplink") { 1.0 } else { 0.45 });
            chart.draw_series([Rectangle::new(
                [(0.0, top + 0.12), (ns, top + 0.88)],
                color.filled(),
            )])?;
            let label = format!("{ns:.0}  ({flows} flow{})", if *flows == 1 { "" } else { "s" });
            let style = ("sans-serif", 12).into_font().color(&BLACK);
            chart.draw_series([Text::new(label, (ns + most * 0.01, top + 0.25), style)])?;
        }
        let middle = (nth * row.ns.len()) as f64 + row.ns.len() as f64 / 2.0 - 0.3;
        let at = chart.backend_coord(&(0.0, middle));
        let style = ("sans-serif", 14).into_font().color(&BLACK);
        area.draw(&Text::new(row.name, (at.0 - 105, at.1), style))?;
    }
    area.present()?;
    Ok(())
}
