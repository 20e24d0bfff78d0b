use super::*;
use resvg::usvg::roxmltree::Document;

fn series(name: &str, y: &[f64]) -> Series {
    let point = |(i, &y): (usize, &f64)| Point { x: i as f64, y, spread: Some([y - 1.0, y + 1.0]) };
    let points = y.iter().enumerate().map(point).collect();
    Series::new(name, 1, points)
}

fn chart(series: Vec<Series>) -> Figure {
    let (x, y) = (Axis { label: "x & y".into(), ..Axis::default() }, Axis::default());
    let chart = Chart { title: "a <b>".into(), x, y, series, size: [100.0, 80.0] };
    Figure { title: "\"t\"".into(), description: "d".into(), rows: vec![vec![Panel::Chart(chart)]] }
}

fn map(values: Vec<Vec<f64>>, range: [f64; 2]) -> Figure {
    let map = HeatMap {
        title: String::new(),
        row_names: vec!["a".into(), "b".into()],
        column_names: vec!["1".into(), "a long name <".into()],
        column_label: String::new(),
        values,
        row_gaps: vec![1],
        column_gaps: Vec::new(),
        scale: Scale { label: "%".into(), range },
        cell: [30.0, 16.0],
        decimals: 1,
        ground: None,
    };
    Figure { title: "t".into(), description: "d".into(), rows: vec![vec![Panel::HeatMap(map)]] }
}

/// Numbers of marks and of elements called `name`.
fn counts(svg: &str, name: &str) -> [usize; 2] {
    let document = Document::parse(svg).unwrap();
    let marks = document.descendants().filter(|e| e.attribute("class") == Some("mark")).count();
    [marks, document.descendants().filter(|e| e.has_tag_name(name)).count()]
}

#[test]
fn a_chart_has_a_mark_a_point_and_gaps_for_what_is_no_number() {
    let whole = chart(vec![series("s", &[1.0, 2.0, 3.0, 4.0, 5.0])]).svg();
    let gap = chart(vec![series("s", &[1.0, 2.0, f64::NAN, 4.0, f64::INFINITY])]).svg();
    let ([all, lines], [some, broken]) = (counts(&whole, "polygon"), counts(&gap, "polygon"));
    assert_eq!((all, lines, some, broken), (5, 1, 3, 1));
    assert!(!gap.contains("NaN") && !gap.contains("inf\""), "{gap}");
    assert!(whole.contains("a &lt;b&gt;") && whole.contains("x &amp; y") && whole.contains("&quot;t&quot;"));
    let document = Document::parse(&whole).unwrap();
    let root = document.root_element();
    assert_eq!(root.attribute("role"), Some("img"));
    let first: Vec<&str> = root
        .children()
        .filter(resvg::usvg::roxmltree::Node::is_element)
        .map(|e| e.tag_name().name())
        .collect();
    assert_eq!(first[..2], ["title", "desc"]);
}

#[test]
fn points_that_stand_apart_are_not_joined_and_a_line_has_no_marks() {
    let drawn = |how: Drawn| {
        let svg = chart(vec![series("s", &[1.0, 2.0, 4.0]).drawn(how)]).svg();
        counts(&svg, "polyline")
    };
    let (joined, apart, line) = (drawn(Drawn::Joined), drawn(Drawn::Apart), drawn(Drawn::Line));
    assert_eq!((joined[0], apart[0], line[0]), (3, 3, 0));
    // Three bars of spreads instead of a line and its sample in the legend.
    assert_eq!((apart[1], line[1]), (joined[1] + 1, joined[1]));
}

#[test]
fn a_heat_map_prints_its_numbers_and_leaves_out_what_is_none() {
    let svg = map(vec![vec![1.25, 99.0], vec![f64::NAN, 50.0]], [0.0, 100.0]).svg();
    assert_eq!(counts(&svg, "desc"), [3, 1]);
    let document = Document::parse(&svg).unwrap();
    let texts: Vec<&str> =
        document.descendants().filter(|e| e.has_tag_name("text")).filter_map(|e| e.text()).collect();
    for text in ["1.2", "99.0", "–", "50.0", "a long name <"] {
        assert!(texts.contains(&text), "{text}: {texts:?}");
    }
}

#[test]
fn empty_and_constant_data_have_figures_too() {
    let figures = [
        Figure { title: String::new(), description: String::new(), rows: Vec::new() },
        chart(Vec::new()),
        chart(vec![series("", &[])]),
        chart(vec![series("one", &[5.0])]),
        chart(vec![series("large", &[1e300, -1e300, 1e308])]),
        map(Vec::new(), [0.0, 1.0]),
        map(vec![vec![3.0, 3.0], vec![]], [3.0, 3.0]),
    ];
    for figure in figures {
        let svg = figure.svg();
        assert!(!svg.contains("NaN") && !svg.contains("inf,"), "{svg}");
        let png = figure.png().unwrap();
        let reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let info = reader.info();
        assert!((800..3000).contains(&info.width) && info.height > 20, "{} x {}", info.width, info.height);
        assert_eq!(info.pixel_dims.unwrap().xppu, 11_811);
    }
}

/// Texts end within the figure, however few cells it has and however long its label is.
#[test]
fn nothing_is_cut_at_the_right() {
    for label in ["%", "accuracy (%)", "a label that is longer than many a label is"] {
        let mut figure = map(vec![vec![1.0, 60.0]], [0.0, 60.0]);
        if let Panel::HeatMap(map) = &mut figure.rows[0][0] {
            map.scale.label = label.into();
        }
        let svg = figure.svg();
        let document = Document::parse(&svg).unwrap();
        let number =
            |e: resvg::usvg::roxmltree::Node<'_, '_>, key: &str| e.attribute(key)?.parse::<f64>().ok();
        let wide = number(document.root_element(), "width").unwrap();
        for text in document.descendants().filter(|e| e.has_tag_name("text")) {
            let (Some(x), Some(size)) = (number(text, "x"), number(text, "font-size")) else { continue };
            let share = match text.attribute("text-anchor") {
                Some("start") => 1.0,
                Some("middle") => 0.5,
                _ => 0.0,
            };
            let end = x + share * width(text.text().unwrap_or_default(), size);
            assert!(end <= wide, "{:?} ends at {end} of {wide}", text.text());
        }
    }
}

/// Texts that are not turned, with where they begin and end and their height.
fn placed(svg: &str) -> Vec<(String, [f64; 2], f64)> {
    let document = Document::parse(svg).unwrap();
    let texts = document.descendants().filter(|e| e.has_tag_name("text"));
    let place = |text: resvg::usvg::roxmltree::Node<'_, '_>| {
        let number = |key: &str| text.attribute(key)?.parse::<f64>().ok();
        let (x, y, words) = (number("x")?, number("y")?, text.text().unwrap_or_default());
        let wide = width(words, number("font-size")?);
        let share = match text.attribute("text-anchor") {
            Some("start") => 0.0,
            Some("middle") => 0.5,
            _ => 1.0,
        };
        Some((words.to_owned(), [x - share * wide, x + (1.0 - share) * wide], y))
    };
    texts.filter_map(place).collect()
}

/// Labels of columns that are wider than all columns, of maps beside each other.
#[test]
fn labels_of_few_columns_do_not_meet() {
    for names in [["a", "b"], ["", ""]] {
        let mut figure = map(vec![vec![1.0, 60.0]; 2], [0.0, 60.0]);
        let Panel::HeatMap(map) = &mut figure.rows[0][0] else { panic!("a map") };
        map.column_names = vec!["0".into(), "0.1".into()];
        map.column_label = "standard deviation of the noise".into();
        let next = HeatMap { row_names: Vec::new(), ..map.clone() };
        map.row_names = names.map(str::to_owned).to_vec();
        figure.rows[0].push(Panel::HeatMap(next));
        let svg = figure.svg();
        let document = Document::parse(&svg).unwrap();
        let wide: f64 = document.root_element().attribute("width").unwrap().parse().unwrap();
        let texts = placed(&svg);
        let labels: Vec<_> = texts.iter().filter(|(text, ..)| text.starts_with("standard")).collect();
        let [(_, first, above), (_, second, below)] = labels[..] else { panic!("{texts:?}") };
        assert!(above == below && first[1] + 4.0 < second[0], "{first:?} {second:?}");
        assert!(first[0] >= 0.0 && second[1] <= wide, "{first:?} {second:?} of {wide}");
    }
}

/// An axis with fixed ends keeps them, so that panels without numbers are read by those of others.
#[test]
fn a_fixed_range_is_not_widened() {
    let of = |y: f64, spread: [f64; 2]| {
        let points = [0.0, 1.0].map(|x| Point { x, y, spread: Some(spread) }).to_vec();
        let mut figure = chart(vec![Series::new("", 0, points)]);
        let Panel::Chart(chart) = &mut figure.rows[0][0] else { panic!("a chart") };
        chart.y.range = Some([0.0, 60.0]);
        figure.svg()
    };
    let ticks = |svg: &str| -> Vec<(String, f64)> {
        let texts = placed(svg).into_iter().filter(|(text, ..)| text.parse::<f64>().is_ok_and(|v| v > 1.0));
        texts.map(|(text, _, y)| (text, y)).collect()
    };
    let (within, beyond) = (of(30.0, [20.0, 40.0]), of(50.0, [-30.0, 90.0]));
    assert_eq!(ticks(&within).last().unwrap().0, "60");
    assert_eq!(ticks(&within), ticks(&beyond));
    // The area ends with the plot.
    let document = Document::parse(&beyond).unwrap();
    let area = document.descendants().find(|e| e.has_tag_name("polygon")).unwrap();
    let heights: Vec<f64> = area
        .attribute("points")
        .unwrap()
        .split(' ')
        .map(|point| point.split_once(',').unwrap().1.parse().unwrap())
        .collect();
    let (top, bottom) =
        (heights.iter().fold(f64::MAX, |a, b| a.min(*b)), heights.iter().fold(0.0, |a: f64, b| a.max(*b)));
    assert!((bottom - top - 80.0).abs() < 0.02, "{heights:?}");
}

/// One epoch and two, with the numbers that stand below them.
#[test]
fn counts_have_no_fractions() {
    for (epochs, expected) in [(1, &["1"][..]), (2, &["1", "2"][..]), (3, &["1", "2", "3"][..])] {
        let points = (1..=epochs).map(|x| Point { x: f64::from(x), y: 50.0, spread: None }).collect();
        let mut figure = chart(vec![Series::new("", 0, points)]);
        let Panel::Chart(chart) = &mut figure.rows[0][0] else { panic!("a chart") };
        (chart.x.whole, chart.y.bare, chart.size) = (true, true, [360.0, 190.0]);
        let texts = placed(&figure.svg()).into_iter().map(|(text, ..)| text);
        let numbers: Vec<String> = texts.filter(|text| text.parse::<f64>().is_ok()).collect();
        assert_eq!(numbers, expected);
    }
}

#[test]
fn letters_become_ink() {
    let dark = |figure: &Figure| {
        let mut reader = png::Decoder::new(std::io::Cursor::new(figure.png().unwrap())).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut pixels).unwrap();
        pixels.chunks(3).filter(|p| p.iter().all(|&v| v < 90)).count()
    };
    let with = chart(vec![series("a name in the legend", &[1.0, 2.0])]);
    let without = chart(vec![series("", &[1.0, 2.0])]);
    assert!(dark(&with) > dark(&without) + 200);
}

#[test]
fn pictures_are_marks_with_numbers_in_svg_png_and_pdf() {
    let red = Picture { extent: [2, 1], pixels: vec![255, 0, 0, 255, 0, 0], value: 0.25 };
    let gray = Picture { extent: [2, 2], pixels: vec![0, 90, 180, 255], value: f64::NAN };
    let pictures = Pictures {
        title: "p".into(),
        row_names: vec!["a".into(), "b".into()],
        column_names: vec!["1".into(), "2".into()],
        cells: vec![vec![Some(red.clone()), None], vec![None, Some(gray)]],
        size: [40.0, 40.0],
        decimals: 2,
    };
    let figure =
        Figure { title: "t".into(), description: "d".into(), rows: vec![vec![Panel::Pictures(pictures)]] };
    let svg = figure.svg();
    assert_eq!(counts(&svg, "image"), [2, 2]);
    assert!(svg.contains(">0.25<") && !svg.contains(">NaN</text>"));
    let png = figure.png().unwrap();
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    let reds = pixels.chunks_exact(3).filter(|p| p[0] > 240 && p[1] < 20 && p[2] < 20).count();
    assert!(reds > 1000, "{reds} red pixels of a picture that is drawn");
    assert!(figure.pdf().unwrap().windows(6).any(|w| w == b"/Image"));
    let file = red.png(3).unwrap();
    let reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
    assert_eq!((reader.info().width, reader.info().height), (6, 3));
    let matrix = Picture::of_matrix(&[0.0, 1.0, f64::NAN, 0.5], 2, [0.0, 1.0], 0.5);
    assert_eq!((matrix.extent, matrix.pixels.len(), &matrix.pixels[6..9]), ([2, 2], 12, &[0xee; 3][..]));
}
