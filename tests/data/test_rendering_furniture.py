"""What `scripts/render_furniture.py` reads out of a furniture library; drawing it needs pyvista, and is not tested."""

from __future__ import annotations

import numpy as np
import pytest

import render_furniture
from headclip.data.synthetic.photographs import noun_of_thing

CATALOG = """id=Some
name#1=Wine bottle
category#1=Kitchen
model#1=/some/bottle/bottle.obj
name#2=Sitting man
category#2=Characters
model#2=/some/man.obj
name#3=TV 16:9
category#3=Living room
model#3=/some/tv=2/tv.obj
name#4=Lamp
category#4=Lights
model#4=/some/lamp.dae
"""


def test_a_catalogue_names_its_models_and_people_are_left_out():
    found = list(render_furniture.models(CATALOG))
    assert found == [("some/bottle/bottle.obj", "wine bottle"), ("some/tv=2/tv.obj", "tv")]


@pytest.mark.parametrize(("name", "noun"), [("Plate, glass and cutlery", "plate glass and"), ("16:9", "object")])
def test_nouns_are_words(name, noun):
    assert render_furniture.noun_of(name) == noun


def test_pictures_are_named_by_what_they_show(tmp_path):
    names = {render_furniture.file_name("wine bottle", f"some/{n}/bottle.obj", side) for n in (1, 2) for side in (0, 1)}
    assert len(names) == 4
    assert {noun_of_thing(tmp_path / name) for name in names} == {"wine bottle"}


@pytest.mark.parametrize(("level", "lit"), [(5, False), (128, True), (254, False)])
def test_black_and_burnt_out_pictures_are_not_lit(level, lit):
    pixels = np.full((6, 6, 4), level, np.uint8)
    pixels[:, :3] = (0, 0, 0, 0)  # what is transparent does not count
    pixels[:, 3:, 3] = 255
    assert render_furniture.is_lit(pixels) == lit
    assert not render_furniture.is_lit(np.zeros((1, 1, 4), np.uint8))


def test_the_materials_are_those_that_the_model_names(tmp_path):
    model = tmp_path / "a.obj"
    model.write_text("# made by hand\nmtllib some colours.mtl\nv 0 0 0\n")
    assert render_furniture.material_file(model) is None
    (tmp_path / "some colours.mtl").write_text("newmtl a\n")
    assert render_furniture.material_file(model) == tmp_path / "some colours.mtl"
    model.write_text("v 0 0 0\n")
    assert render_furniture.material_file(model) is None
