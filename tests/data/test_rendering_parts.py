"""What `scripts/render_parts.py` reads out of KiCad's models; drawing them needs pyvista and is not tested here."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

import render_parts

MODEL = """#VRML V2.0 utf8
Shape {
    appearance Appearance {material DEF PIN-01 Material {
        ambientIntensity 0.271
        diffuseColor 0.824 0.82 0.781
        transparency 0.0
        }
    }
}
Shape {
    appearance Appearance {material DEF BODY Material {
        diffuseColor 0.1 0.2 0.3
        }
    }
}
Shape { geometry IndexedFaceSet
{ creaseAngle 0.50 coordIndex [0,1,2,-1,2,1,3,-1]
coord Coordinate { point [0 0 0,1 0 0,0 1 0,1 1 0]
}}
appearance Appearance{material USE BODY }
}
Shape { geometry IndexedFaceSet
{ creaseAngle 0.50 coordIndex [0,1,2]
coord Coordinate { point [0 0 5,1 0 5,0 1 5]
}}
appearance Appearance{material USE BODY }
}
Shape { geometry IndexedFaceSet
{ creaseAngle 0.50 coordIndex [0,1,2,3,-1]
coord Coordinate { point [0 0 5,1 0 5,0 1 5,1 1 5]
}}
appearance Appearance{material USE PIN-01 }
}
"""


def test_faces_of_one_material_become_one_mesh():
    [(colour, corners, triangles)] = render_parts.surfaces(MODEL)  # PIN-01 has a face of four corners alone
    np.testing.assert_allclose(colour, [0.1, 0.2, 0.3])
    assert corners.shape == (7, 3)
    assert triangles.tolist() == [[0, 1, 2], [2, 1, 3], [4, 5, 6]]
    assert corners[triangles[2]][:, 2].tolist() == [5, 5, 5]


@pytest.mark.parametrize("text", ["", "Shape { geometry Box {} }", MODEL.replace("BODY", "OTHER", 1)])
def test_files_without_such_faces_hold_nothing_to_draw(text):
    assert render_parts.surfaces(text) == []


@pytest.mark.parametrize(
    ("folder", "noun"),
    [
        ("Connector_USB.3dshapes", "connector"),
        ("Package_QFP.3dshapes", "integrated circuit"),
        ("RF_Module.3dshapes", "rf module"),
        ("Fuse.3dshapes", "fuse"),
    ],
)
def test_folders_name_their_parts(folder, noun):
    assert render_parts.noun_of(Path(folder)) == noun


def test_light_grey_and_gold_shine_more_than_dark_grey():
    shine = [
        np.mean([render_parts.finish(np.array(colour), random.Random(i))["specular"] for i in range(50)])
        for colour in ((0.82, 0.82, 0.78), (0.86, 0.74, 0.5), (0.15, 0.15, 0.15))
    ]
    assert shine[0] > 2 * shine[2]
    assert shine[1] > 2 * shine[2]
