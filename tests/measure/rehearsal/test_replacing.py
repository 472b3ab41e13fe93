import pytest

from parbench.measure.rehearsal.replacing import replaced, wrapped


class Base:
    def inherited(self) -> str:
        return "inherited"


class Owner(Base):
    value = 1

    @staticmethod
    def still() -> str:
        return "still"


def test_a_stand_in_is_there_for_a_while_only() -> None:
    with replaced(Owner, "value", 2):
        assert Owner.value == 2
    assert Owner.value == 1


def test_what_was_inherited_is_inherited_again() -> None:
    with replaced(Owner, "inherited", lambda _: "own"):
        assert Owner().inherited() == "own"
    assert "inherited" not in vars(Owner)
    assert Owner().inherited() == "inherited"


def test_a_static_method_stays_one() -> None:
    before = vars(Owner)["still"]
    with wrapped(Owner, "still", lambda method: lambda: f"not {method()}"):
        assert Owner.still() == "not still"
    assert vars(Owner)["still"] is before
    assert Owner().still() == "still"


def test_an_error_brings_the_attribute_back() -> None:
    with pytest.raises(ZeroDivisionError), replaced(Owner, "value", 2):
        raise ZeroDivisionError
    assert Owner.value == 1
