"""Converts stroke skeletons to pen paths that vary like handwriting.

Points are complex numbers, x + iy with y downwards: addition shifts them, and multiplication by
exp(size + i turn) scales and rotates them. A drawing is one written character. It differs from the
skeleton by the variation between writers and by the variation between the drawings of a writer.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from flaxdigits.data.drawn.skeletons import Skeleton, Stroke
from flaxdigits.progress import NO_PROGRESS, Progress

CHUNK = 50  # drawings to process at once: few enough for the cache; no effect on the result
POINT_SPACING = 1 / 64  # distance of neighboring points of a path, in unit boxes
LOOSE_ENDS = 1.7  # the deviation of the ends of a stroke relative to that of its other points
WAVES = 3  # number of plane waves in a smooth distortion
WAVE_CYCLES = 0.5  # standard deviation of the cycles of a wave per unit box


@dataclass(frozen=True)
class Deviations:
    """Standard deviations of the variation, in unit boxes, radians or logarithms of a factor."""

    slant: float  # horizontal shift per unit of height
    rise: float  # upward shift per unit of width
    turn: float  # rotation of the whole character
    size: float  # log factor of width and height together
    width: float  # log factor
    height: float  # log factor
    waves: float  # amplitude of a smooth distortion of the plane
    point: float  # shift of each control point
    stroke_shift: float  # shift of each stroke as a whole
    stroke_turn: float  # rotation of each stroke
    stroke_size: float  # log factor of each stroke


@dataclass(frozen=True)
class Handwriting:
    """The writer of each drawing, and the variation between writers and between drawings.

    Attributes:
        writers: [n] int, the writer of each drawing, from 0.
        writer_count: the number of writers, including those without drawings.
        between: the deviations between writers.
        within: the deviations between the drawings of a writer.
    """

    writers: np.ndarray
    writer_count: int
    between: Deviations
    within: Deviations

    def of(self, rows: np.ndarray) -> "Handwriting":
        """Returns the handwriting of the drawings `rows`, [m] int."""
        return replace(self, writers=self.writers[rows])

    def normal(self, rng: np.random.Generator, name: str, *shape: int) -> np.ndarray:
        """Samples a variation of each drawing: [n, *shape] float64.

        The sample is the sum of a value that all drawings of a writer share, and of a value that
        belongs to the drawing.

        Args:
            rng: the random generator.
            name: the field of `Deviations` that contains the standard deviations.
            *shape: the shape of the values of a drawing.
        """
        writers = rng.standard_normal((self.writer_count, *shape))
        drawings = rng.standard_normal((len(self.writers), *shape))
        return getattr(self.between, name) * writers[self.writers] + (
            getattr(self.within, name) * drawings
        )

    def complex_normal(self, rng: np.random.Generator, name: str, *shape: int) -> np.ndarray:
        """Samples a shift in the plane for each drawing, as `normal`: [n, *shape] complex128."""
        parts = self.normal(rng, name, *shape, 2)
        return parts[..., 0] + 1j * parts[..., 1]


def control_points(stroke: Stroke) -> np.ndarray:
    """Returns the points of a stroke, each corner once: [controls] complex128."""
    points = [complex(*point) for point in stroke]
    return np.array([p for i, p in enumerate(points) if i == 0 or p != points[i - 1]])


def curve_weights(stroke: Stroke) -> np.ndarray:
    """Returns the matrix that maps control points to a smooth curve: [points, controls] float64.

    Between corners the curve is a natural cubic spline over the chord length.
    """
    points = [complex(*point) for point in stroke]
    pieces = [[0]]
    control = 0
    for previous, point in itertools.pairwise(points):
        if point == previous:
            pieces.append([control])
        else:
            control += 1
            pieces[-1].append(control)
    controls = control_points(stroke)
    rows = []
    for piece in pieces:
        chords = np.abs(np.diff(controls[piece]))
        knots = np.concatenate([[0.0], np.cumsum(chords)])
        steps = int(np.ceil(knots[-1] / POINT_SPACING))
        spline = CubicSpline(knots, np.eye(control + 1)[piece], bc_type="natural")
        rows.append(spline(np.linspace(0, knots[-1], steps + 1)))
    return np.concatenate(rows)


def write_strokes(
    skeleton: Skeleton, handwriting: Handwriting, rng: np.random.Generator
) -> list[np.ndarray]:
    """Draws one skeleton in the given handwriting.

    Returns:
        One [n, points] complex128 array per stroke, in the unit box.
    """
    paths = []
    for stroke in skeleton.strokes:
        controls = control_points(stroke)
        middle = controls.mean()
        turned = np.exp(
            handwriting.normal(rng, "stroke_size") + 1j * handwriting.normal(rng, "stroke_turn")
        )
        shifted = middle + handwriting.complex_normal(rng, "stroke_shift")
        moved = shifted[:, None] + turned[:, None] * (controls - middle)
        loose = np.ones(len(controls))
        loose[[0, -1]] = LOOSE_ENDS
        moved += loose * handwriting.complex_normal(rng, "point", len(controls))
        paths.append(moved @ curve_weights(stroke).T)
    return paths


@dataclass(frozen=True)
class Distortion:
    """The distortion of the whole character of each drawing; the first axis of all arrays is [n].
    """

    slant: np.ndarray
    rise: np.ndarray
    turn: np.ndarray
    width: np.ndarray
    height: np.ndarray
    wave_shifts: np.ndarray  # [n, WAVES] complex
    wave_cycles: NDArray[np.complex128]  # [n, WAVES] complex: cycles along x and y
    wave_phases: np.ndarray  # [n, WAVES]

    @classmethod
    def draw(cls, handwriting: Handwriting, rng: np.random.Generator) -> "Distortion":
        """Samples the distortion of every drawing."""
        n = len(handwriting.writers)
        cycles = rng.normal(0, WAVE_CYCLES, (2, n, WAVES))
        size = handwriting.normal(rng, "size")
        return cls(
            slant=handwriting.normal(rng, "slant"),
            rise=handwriting.normal(rng, "rise"),
            turn=handwriting.normal(rng, "turn"),
            width=np.exp(size + handwriting.normal(rng, "width")),
            height=np.exp(size + handwriting.normal(rng, "height")),
            wave_shifts=handwriting.complex_normal(rng, "waves", WAVES),
            wave_cycles=cycles[0] + 1j * cycles[1],
            wave_phases=rng.uniform(0, 2 * np.pi, (n, WAVES)),
        )

    def apply(self, rows: np.ndarray, points: NDArray[np.complex128]) -> NDArray[np.complex128]:
        """Distorts the points of some drawings about the center.

        Args:
            rows: [m] int, the numbers of the drawings.
            points: [m, points] complex128 in the unit box.

        Returns:
            [m, points] complex128, relative to the center of the unit box.
        """
        points = points - (0.5 + 0.5j)
        bent = points.copy()
        for wave in range(WAVES):
            cycles = self.wave_cycles[rows, wave, None]
            angle = 2 * np.pi * (cycles.real * points.real + cycles.imag * points.imag)
            bent += self.wave_shifts[rows, wave, None] * np.sin(
                angle + self.wave_phases[rows, wave, None]
            )
        x = self.width[rows, None] * bent.real - self.slant[rows, None] * bent.imag
        y = self.height[rows, None] * bent.imag - self.rise[rows, None] * bent.real
        return (x + 1j * y) * np.exp(1j * self.turn[rows, None])


def write_characters(
    characters: tuple[tuple[Skeleton, ...], ...],
    labels: np.ndarray,
    forms: np.ndarray,
    handwriting: Handwriting,
    rng: np.random.Generator,
    progress: Progress = NO_PROGRESS,
) -> Iterator[tuple[Skeleton, np.ndarray, list[NDArray[np.complex128]]]]:
    """Writes one character per label.

    Args:
        characters: the skeletons of each class.
        labels: [n] int, the class of each drawing.
        forms: [n] float64 in [0, 1), by which a skeleton of the class is selected in proportion to
            the shares.
        handwriting: the writers of the drawings, and their variation.
        rng: the random generator.
        progress: is notified of the number of drawings.

    Yields:
        A skeleton, the rows [m] that were written with it, and one [m, points] complex128 array
        per stroke, in unit boxes relative to the center of the box. Every row occurs once.
    """
    distortion = Distortion.draw(handwriting, rng)
    with progress.stage("generating synthetic images", len(labels)) as advance:
        done = 0
        for label, skeletons in enumerate(characters):
            ends = np.cumsum([skeleton.share for skeleton in skeletons])
            choice = np.searchsorted(ends, forms * ends[-1], side="right")
            for number, skeleton in enumerate(skeletons):
                rows = np.flatnonzero((labels == label) & (choice == number))
                paths = write_strokes(skeleton, handwriting.of(rows), rng)
                for start in range(0, len(rows), CHUNK):
                    part = slice(start, start + CHUNK)
                    distorted = [distortion.apply(rows[part], path[part]) for path in paths]
                    yield skeleton, rows[part], distorted
                    done += len(rows[part])
                    advance(done)
