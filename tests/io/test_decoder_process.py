"""The process that decodes: which decoder it asks. Its life and death: `test_decoding`."""

from io import BytesIO

from pydicom import uid
from pydicom.pixels import get_decoder

from pathology_screen.io import decoder_process
from pathology_screen.io.decoder_process import answer, plugin_of


def test_the_decoder_of_every_syntax_is_installed():
    syntaxes = [*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes]
    for syntax in (*syntaxes, uid.JPEG2000Lossless, uid.JPEG2000, uid.RLELossless):
        assert plugin_of(syntax) in get_decoder(syntax).available_plugins


def test_memory_that_lacks_before_the_decoder_begins_is_told_too(monkeypatch):
    def encapsulate(*frames, **options):
        raise MemoryError

    monkeypatch.setattr(decoder_process, "encapsulate", encapsulate)
    assert answer(b"", uid.RLELossless, BytesIO()) == ({"error": "MemoryError"}, b"")
