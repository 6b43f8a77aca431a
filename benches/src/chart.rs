//! A line chart as SVG.

use plotters::prelude::*;

use crate::BenchError;

const SIZE: (u32, u32) = (900, 520);

/// What is drawn.
#[derive(Clone, Debug)]
pub struct Chart<'a> {
    /// Above it.
    pub title: &'a str,
    /// What goes to the right.
    pub x: &'a str,
    /// What goes up.
    pub y: &'a str,
    /// The lines, each in a colour of its own.
    pub lines: Vec<Line<'a>>,
}

/// One line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// What the legend calls it.
    pub name: &'a str,
    /// Its points, from left to right.
    pub points: &'a [(f64, f64)],
}

impl Chart<'_> {
    /// The picture.
    ///
    /// # Errors
    /// [`BenchError::Argument`] if it cannot be drawn.
    pub fn svg(&self) -> Result<String, BenchError> {
        let mut svg = String::new();
        self.draw(&mut svg).map_err(|error| {
            BenchError::Argument(format!("cannot draw {}: {error}", self.title))
        })?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let points = || self.lines.iter().flat_map(|line| line.points.iter());
        let right = points().map(|(x, _)| *x).fold(0.0, f64::max);
        let top = points().map(|(_, y)| *y).fold(0.0, f64::max);
        // An empty axis cannot be divided.
        let (right, top) = (right.max(f64::EPSILON), top.max(f64::EPSILON) * 1.05);
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, ("sans-serif", 18))
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..right, 0.0..top)?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .draw()?;
        for (number, line) in self.lines.iter().enumerate() {
            let colour = Palette99::pick(number).to_rgba();
            chart
                .draw_series(LineSeries::new(
                    line.points.iter().copied(),
                    colour.stroke_width(2),
                ))?
                .label(line.name)
                .legend(move |(x, y)| {
                    PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2))
                });
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        area.present()?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_their_names_are_in_the_picture() {
        let chart = Chart {
            title: "a title",
            x: "seconds",
            y: "MiB/s",
            lines: vec![
                Line {
                    name: "one",
                    points: &[(0.0, 1.0), (1.0, 2.0)],
                },
                Line {
                    name: "none",
                    points: &[],
                },
            ],
        };
        let svg = chart.svg().unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for text in ["a title", "seconds", "MiB/s", "one", "none", "<polyline"] {
            assert!(svg.contains(text), "{text} is missing in {svg}");
        }
    }
}
