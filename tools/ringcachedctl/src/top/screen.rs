//! The picture: totals above, tables below, what keys do at the bottom. Pure: a state to cells of a
//! terminal, of whatever size.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table as Grid};

use super::state::{Order, State};
use super::table::{Cell, Table};
use super::view::View;

const HELP: &str = "q quit  Tab table  \u{2190}\u{2192} sort by  r reverse  \
                    \u{2191}\u{2193} scroll  +- pace  p pause";

/// Columns of a total: its name and its value.
const TOTAL_COLUMNS: u16 = 26;
/// Rows with which a table tells something: frame, heading, and a few more.
const TABLE_ROWS_MIN: u16 = 5;

pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    let area = frame.area();
    let totals = state.view.as_ref().map_or(1, |view| total_rows(view, area.width));
    let parts = [Constraint::Length(1), Constraint::Length(totals), Constraint::Min(0)];
    let [head, body, tables, help] =
        Layout::vertical([parts[0], parts[1], parts[2], Constraint::Length(1)]).areas(area);
    frame.render_widget(title(state), head);
    frame.render_widget(Paragraph::new(HELP).style(dim()), help);
    match &state.view {
        None => frame.render_widget(Paragraph::new("waiting for the server"), body),
        Some(view) => {
            frame.render_widget(Paragraph::new(total_lines(view, body.width)), body);
            draw_tables(frame, state, view, tables);
        }
    }
}

fn title(state: &State) -> Paragraph<'_> {
    let interval = state.interval.as_secs_f64();
    let mut spans = vec![
        Span::styled("ringcached ", Style::new().add_modifier(Modifier::BOLD)),
        Span::raw(format!("{}  every {interval} s", state.server)),
    ];
    let alarm = Style::new().add_modifier(Modifier::REVERSED);
    if state.is_paused {
        spans.extend([Span::raw("  "), Span::styled("paused", alarm)]);
    }
    if let Some(trouble) = &state.trouble {
        spans.extend([Span::raw("  "), Span::styled(trouble.as_str(), alarm)]);
    }
    Paragraph::new(Line::from(spans))
}

fn dim() -> Style {
    Style::new().add_modifier(Modifier::DIM)
}

fn totals_beside(width: u16) -> usize {
    usize::from((width / TOTAL_COLUMNS).max(1))
}

fn total_rows(view: &View, width: u16) -> u16 {
    u16::try_from(view.totals.len().div_ceil(totals_beside(width))).unwrap_or(u16::MAX)
}

fn total_lines(view: &View, width: u16) -> Vec<Line<'_>> {
    let spans = |(name, cell): &(super::table::Column, Cell)| {
        let name = Span::styled(format!("{:>14} ", name.heading), dim());
        [name, Span::raw(format!("{:<11}", cell.text()))]
    };
    let rows = view.totals.chunks(totals_beside(width));
    rows.map(|row| Line::from(row.iter().flat_map(spans).collect::<Vec<_>>())).collect()
}

/// All tables if there is room, and otherwise the one that keys are about.
fn draw_tables(frame: &mut Frame<'_>, state: &State, view: &View, area: Rect) {
    let all = u16::try_from(view.tables.len()).unwrap_or(u16::MAX);
    if area.height < all * TABLE_ROWS_MIN {
        let (table, order) = (&view.tables[state.table], state.orders[state.table]);
        return frame.render_widget(grid(table, order, true), area);
    }
    // Frame and heading are three rows; what is left over is for the last.
    let wanted = view.tables.iter().map(|table| {
        let rows = u16::try_from(table.rows.len()).unwrap_or(u16::MAX).saturating_add(3);
        Constraint::Max(rows.max(TABLE_ROWS_MIN))
    });
    let areas = Layout::vertical(wanted).split(area);
    for (place, (table, area)) in view.tables.iter().zip(areas.iter()).enumerate() {
        let grid = grid(table, state.orders[place], place == state.table);
        frame.render_widget(grid, *area);
    }
}

fn grid(table: &Table, order: Order, is_chosen: bool) -> Grid<'_> {
    let rows = match order.column {
        Some(column) => table.sorted(column, order.descending),
        None => table.rows.iter().map(Vec::as_slice).collect(),
    };
    let line = |cells: &[Cell]| Row::new(cells.iter().map(|cell| right(&cell.text())));
    let heading = table.columns.iter().enumerate().map(|(place, column)| {
        let mark = match order.column {
            Some(sorted) if sorted == place && order.descending => "\u{2193}",
            Some(sorted) if sorted == place => "\u{2191}",
            Some(_) | None => "",
        };
        right(&format!("{}{mark}", column.heading))
    });
    let widths = table.widths();
    let widths =
        widths.iter().map(|width| Constraint::Length(u16::try_from(*width).unwrap_or(u16::MAX)));
    let frame = if is_chosen { Style::new().add_modifier(Modifier::BOLD) } else { dim() };
    Grid::new(rows.into_iter().skip(order.offset).map(line), widths)
        .header(Row::new(heading).style(Style::new().add_modifier(Modifier::BOLD)))
        .column_spacing(1)
        .block(Block::bordered().title(table.title).border_style(frame))
}

fn right(text: &str) -> Line<'static> {
    Line::from(text.to_owned()).right_aligned()
}

#[cfg(test)]
mod tests;
