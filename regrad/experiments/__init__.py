"""The paper's tables measured again, and every model of libraries tried. Not part of the wheel."""
